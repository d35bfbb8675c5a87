"""Files on disk: complete or absent, images in and out, names in natural order."""
