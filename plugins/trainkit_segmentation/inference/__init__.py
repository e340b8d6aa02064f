"""From patches to whole volumes."""
