"""Numbers in words, for every output."""
