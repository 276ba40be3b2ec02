"""Distillation losses: one family per file, the pure function first."""
