"""The claims bench: what the paper of a method says it gains, measured again here. docs/claims.md holds the results."""
