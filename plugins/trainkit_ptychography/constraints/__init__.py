"""What is imposed on object and probe between steps: a kind that other packages can extend."""
