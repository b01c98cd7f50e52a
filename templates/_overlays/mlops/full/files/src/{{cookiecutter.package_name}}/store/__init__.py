"""The prediction log: requests, predictions and the ground truth of their feedback."""
