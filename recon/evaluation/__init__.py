"""Scores, statistics and pictures of reconstructions."""
