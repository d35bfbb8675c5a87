"""A whole film to a larger one: planned, done in segments that survive a stop, put together."""
