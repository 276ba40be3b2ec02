"""Networks and what they cost. Dotted paths are stable, because plans files store them."""
