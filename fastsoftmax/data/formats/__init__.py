"""Files and streams as record batches, and record batches as files."""
