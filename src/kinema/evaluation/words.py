"""Numbers as people read them."""

from __future__ import annotations

import math
from collections.abc import Sequence


def number(value: float | None) -> str:
    """Four digits that count, without an exponent where it can be avoided."""
    if value is None:
        return "–"
    if value == 0 or 1e-4 <= abs(value) < 1e6:
        digits = max(0, 3 - math.floor(math.log10(abs(value)))) if value else 0
        return f"{value:,.{digits}f}"
    return f"{value:.3e}"


def interval(ends: Sequence[float] | None) -> str:
    """Two numbers with a dash between."""
    return "–" if ends is None else f"{number(ends[0])} to {number(ends[1])}"
