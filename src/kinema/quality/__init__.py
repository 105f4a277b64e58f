"""Techniques for better pictures, subjects and layouts."""
