"""The trainer, its stages, and what makes long work safe to stop."""
