"""Pictures as tensors: colour, chroma, size and degradation, and how far apart two of them are."""
