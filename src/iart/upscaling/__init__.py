"""Frames to larger frames: windows in time, tiles in space, within the memory that is free."""
