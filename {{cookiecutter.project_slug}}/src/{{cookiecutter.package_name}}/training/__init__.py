"""From data and settings to weights and their measured worth."""
