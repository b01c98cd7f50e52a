"""Retraining: when it is due, on which data, and whether the new model may be tried."""
