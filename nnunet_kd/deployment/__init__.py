"""From a training folder to a model that travels."""
