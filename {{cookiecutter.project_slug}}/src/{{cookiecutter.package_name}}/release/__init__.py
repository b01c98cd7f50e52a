"""From a run to production: export, deploy, start a challenger, promote, roll back."""
