"""Many rows through the kernels, at weights that stay as they are."""
