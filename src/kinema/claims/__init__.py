"""What kinema and the methods on it reach, measured again."""
