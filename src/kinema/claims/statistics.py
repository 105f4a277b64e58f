"""Shares with their intervals, as every claim prints them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kinema.metrics.statistics import wilson


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
