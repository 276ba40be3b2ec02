"""Challenge data in, submissions out: one challenge per file."""
