"""One case and its files, what the values of a label mean, and made-up cases."""
