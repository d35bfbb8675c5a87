"""Interlaced pictures and film in fields: recognised, and made whole frames."""
