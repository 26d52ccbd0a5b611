"""The command line: the only room that imports argparse, and the only one that prints."""
