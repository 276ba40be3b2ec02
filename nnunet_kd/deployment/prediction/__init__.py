"""Predicting folders of cases: which files, in which order, and what is left behind."""
