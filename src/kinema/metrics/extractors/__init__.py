"""One file for each kind of network that turns frames into features."""
