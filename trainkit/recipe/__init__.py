"""From a recipe's text to checked settings: positions, layers, structure, rules, findings."""
