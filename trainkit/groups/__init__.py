"""Parameter groups: when each trains and at which rate, the controller of a running training, and resuming."""
