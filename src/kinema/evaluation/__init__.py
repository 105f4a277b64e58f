"""Folders of clips in, tables of numbers out: resumable, in parallel, and two folders compared."""
