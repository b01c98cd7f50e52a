"""From one model to the next: decide, retrain, compare, try, promote, return."""
