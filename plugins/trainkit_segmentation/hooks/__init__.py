"""Pictures of predictions, for a person to look at."""
