"""Files to frames and back, with PyAV."""
