"""From a raw data set to plans and preprocessed data."""
