"""``trainkit predict``: new inputs go through trained models, one after the other."""
