"""Frames to files: codecs, containers, and the trial that comes before the work."""
