"""Techniques that make sampling faster by computing less. docs/speed.md says by how much, and at what price."""
