"""Score whole files with a bundle. Needs the extra `batch`, no PyTorch."""
