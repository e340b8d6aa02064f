"""From a folder of cases to a recipe, by the rules of nnU-Net's planner."""
