"""Faults of known strength, that show what each metric sees and what it ignores."""
