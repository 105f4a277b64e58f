"""Distances between sets of clips."""
