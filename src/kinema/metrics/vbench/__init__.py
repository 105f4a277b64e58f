"""The sixteen dimensions of VBench by their names."""
