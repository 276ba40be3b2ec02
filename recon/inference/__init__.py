"""From a trained model to volumes."""
