"""Parameter groups: a pure plan of who trains when at which rate, the live controller, and how a resume goes on."""
