"""A run in several processes: which of them this one is, how they agree, and how they add up what each computed."""
