"""Benchmarks: published protocols, scores of networks and of frames made elsewhere, reports."""
