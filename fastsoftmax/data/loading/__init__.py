"""Rows brought to the kernels: in which order, read ahead, kept for later epochs."""
