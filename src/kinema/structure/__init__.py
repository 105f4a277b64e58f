"""Methods that keep the structure of a clip."""
