"""Pairs to train on from two discs of one film: matched in time, registered in space, and cut."""
