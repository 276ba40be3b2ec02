"""Trained reconstruction networks whose convolutions run without PyTorch's."""
