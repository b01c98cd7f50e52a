"""Training, checkpoints, runs and their evaluation."""
