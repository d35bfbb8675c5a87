"""Clips for training."""
