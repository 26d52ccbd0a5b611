"""One class for each update kernel: when it fits, what it allocates, how it steps, what is kept."""
