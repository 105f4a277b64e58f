"""How a clip moves and holds together over time."""
