"""Whether a clip shows what its prompt asked for."""
