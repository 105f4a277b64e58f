"""A procedural 3D world: captioned clips with full ground truth, from a seed."""
