"""Mathematics and readings that several techniques share, with no paper's name."""
