"""Experiment tracking and reports."""
