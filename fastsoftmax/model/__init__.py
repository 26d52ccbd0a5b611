"""A trained model: its values, its file, its predictions. Compiles nothing."""
