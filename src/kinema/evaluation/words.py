"""Numbers as people read them."""

from __future__ import annotations

import math
from collections.abc import Sequence


def number(value: float | None) -> str:
    """Four digits that count, without an exponent where it can be avoided; whole numbers as they are."""
    if value is None:
        return "–"
    if value == round(value) and abs(value) < 1e6:
        return f"{value:,.0f}"
    if 1e-4 <= abs(value) < 1e6:
        digits = max(0, 3 - math.floor(math.log10(abs(value))))
        return f"{value:,.{digits}f}"
    return f"{value:.3e}"


def interval(ends: Sequence[float] | None) -> str:
    """Two numbers with a dash between."""
    return "–" if ends is None else f"{number(ends[0])} to {number(ends[1])}"
