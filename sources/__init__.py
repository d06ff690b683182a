"""Sources of images: files, splits, phantoms."""
