"""Where images come from: files, splits, phantoms."""
