"""The forms in which a trained model is written for other programs, one file each."""
