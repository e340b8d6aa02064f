"""How far the reconstructions from two halves of a scan agree."""
