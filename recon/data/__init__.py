"""Raw data sets of k-space: formats in, one layout inside, phantoms."""
