"""Trainers and what they minimise."""
