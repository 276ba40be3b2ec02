"""Scores, paired statistics, plots and the comparison report."""
