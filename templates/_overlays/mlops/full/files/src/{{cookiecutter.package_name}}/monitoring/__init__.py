"""Judge a deployed model by the prediction log: drift, quality, verdicts of A/B tests."""
