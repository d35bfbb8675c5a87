"""iart: video made four times larger and restored (IART, CVPR 2024)."""
