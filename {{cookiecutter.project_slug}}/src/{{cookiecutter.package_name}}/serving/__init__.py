"""The HTTP server: reads the deployment folder and nothing else."""
