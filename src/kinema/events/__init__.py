"""Techniques that say what happens when."""
