"""Frames to larger frames."""
