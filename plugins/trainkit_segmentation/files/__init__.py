"""Single files: NIfTI, and what is remembered of their content."""
