"""Families of video models, one file each, behind one face."""
