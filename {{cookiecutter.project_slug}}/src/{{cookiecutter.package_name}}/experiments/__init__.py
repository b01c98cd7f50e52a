"""Experiments are recorded and documented by the project itself."""
