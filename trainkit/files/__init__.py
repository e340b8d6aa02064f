"""Files that are written whole or not at all, read with care, and remembered: for the core and for plugins."""
