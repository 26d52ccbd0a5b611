"""A run: what it decides, from the first look at the data to the model."""
