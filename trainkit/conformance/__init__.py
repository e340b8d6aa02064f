"""Checks of live parts, for `trainkit.testing`: each tries a part, and says in a sentence what is wrong."""
