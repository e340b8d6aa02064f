"""What pictures of all fields have in common: colours that can be told apart, scale bars, a font."""
