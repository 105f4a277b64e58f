"""Shares with their intervals, as every claim prints them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Share:
    """`right` of `count`, with the 95% Wilson interval."""

    right: int
    count: int

    @property
    def value(self) -> float:
        """Share of right ones, 0..1; NaN of nothing."""
        return self.right / self.count if self.count else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.right, self.count)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "value": self.value if self.count else None, "interval": list(self.interval)}

    def __str__(self) -> str:
        if not self.count:
            return "   -"
        low, high = self.interval
        return f"{self.value:6.1%}  [{low:.1%}, {high:.1%}]  {self.right} of {self.count}"


def share(rights: Sequence[bool]) -> Share:
    return Share(sum(map(bool, rights)), len(rights))


def wilson(right: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    """Score interval of a share (Wilson, "Probable inference, the law of succession, and statistical inference", 1927).

    (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), p = right / count; (0, 1) for a count of 0.
    Raises: ValueError when right is not 0 to count.
    """
    if not 0 <= right <= count:
        raise ValueError(f"right is {right} of {count}; use 0 to {count}")
    if count == 0:
        return 0.0, 1.0
    p, n = right / count, count
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    reach = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, middle - reach), min(1.0, middle + reach)
