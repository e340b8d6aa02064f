"""Pictures of what a network finds, for a person to look at."""
