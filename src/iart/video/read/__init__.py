"""Files to frames: opening, decoding, times, and what a file says of itself."""
