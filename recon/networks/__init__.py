"""Reconstruction networks; plans files store their dotted paths."""
