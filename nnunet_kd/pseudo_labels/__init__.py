"""From unlabelled scans to training cases."""
