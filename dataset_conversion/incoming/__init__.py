"""From a download to a raw nnU-Net data set: read, check, write."""
