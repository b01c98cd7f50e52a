"""Watching a deployed model: drift of what it is asked and answers, verdicts of A/B tests."""
