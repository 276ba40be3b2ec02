"""From an image file to its label map as nnU-Net makes it, without PyTorch and without nnU-Net."""
