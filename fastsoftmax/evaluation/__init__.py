"""How good a model is, and how that is told."""
