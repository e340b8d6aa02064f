"""Single files: NIfTI, and cached facts about their content."""
