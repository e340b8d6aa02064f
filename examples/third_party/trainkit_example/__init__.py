"""Parts for trainkit, each in a file of its own: a perceptron learns a line through points."""
