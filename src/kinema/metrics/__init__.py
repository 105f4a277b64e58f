"""One file for each number, with unit, range and direction; and the judge."""
