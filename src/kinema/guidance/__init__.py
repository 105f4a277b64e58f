"""Who combines the branches: classifier-free guidance and its relatives."""
