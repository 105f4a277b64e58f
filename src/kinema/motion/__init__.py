"""Methods that say how things move."""
