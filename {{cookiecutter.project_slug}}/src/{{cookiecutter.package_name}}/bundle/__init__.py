"""The one folder that training hands to serving."""
