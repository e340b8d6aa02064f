"""Where values and pictures go."""
