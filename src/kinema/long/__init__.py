"""Videos longer than a model makes in one pass."""
