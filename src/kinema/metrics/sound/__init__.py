"""Whether sound and picture belong together."""
