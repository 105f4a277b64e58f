"""Whether a claim holds: pairs of values, their differences with intervals, and the one rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from kinema.claims.bench.claim import COSTS, Better, Claim, Comparison, Numbers
from kinema.metrics.statistics import bootstrap

Verdict = Literal["holds", "holds in part", "does not hold here", "too few prompts"]
Row = Mapping[str, Numbers]  # arm -> values, of one case
FEWEST = 5  # prompts, for a verdict
RULE = (
    "A claim **holds** when the 95% interval of its main difference is clear of zero in the claimed direction, and\n"
    "all that stands beside it, above all what the main measure could cheat on, stays within its margin on average;\n"
    "it **holds in part** when the main difference is clear and something beside it is lost, and otherwise it **does\n"
    f"not hold here**. With fewer than {FEWEST} prompts nothing is said."
)


@dataclass(frozen=True)
class Difference:
    """A comparison, measured: arm less other, its mean and interval. `margin` may be lost; below 0 it is to be won."""

    label: str
    arm: str
    against: str
    better: Better
    count: int  # pairs
    of_arm: float | None  # means
    of_other: float | None
    mean: float | None
    interval: tuple[float, float] | None  # bootstrap, 95%
    margin: float

    @property
    def least(self) -> float | None:
        """The lower end of the interval of the gain: positive is better."""
        if self.interval is None:
            return None
        return self.interval[0] if self.better == "higher" else -self.interval[1]

    @property
    def gain(self) -> float | None:
        return self.mean if self.mean is None or self.better == "higher" else -self.mean

    @property
    def clear(self) -> bool:
        """Whether the interval lies beyond the margin: of a main difference."""
        return self.least is not None and self.least > -self.margin

    @property
    def kept(self) -> bool:
        """Whether the mean stays within the margin: of a guard."""
        return self.gain is not None and self.gain >= -self.margin


def difference(claim: Claim, comparison: Comparison, rows: Sequence[Row]) -> Difference:
    """Of all cases for which both arms have a value."""
    pairs = [(row[comparison.arm].get(comparison.label), row[comparison.against].get(comparison.label)) for row in rows]
    values = np.array([pair for pair in pairs if None not in pair], dtype=np.float64).reshape(-1, 2)
    told: dict[str, Any] = dict(label=comparison.label, arm=comparison.arm, against=comparison.against)
    told["better"] = claim.better(comparison)
    if not len(values):
        return Difference(**told, count=0, of_arm=None, of_other=None, mean=None, interval=None, margin=0.0)
    one, other = values.mean(0)
    return Difference(
        **told,
        count=len(values),
        of_arm=float(one),
        of_other=float(other),
        mean=float(one - other),
        interval=bootstrap(values[:, 0] - values[:, 1]),
        margin=comparison.slack + comparison.share * abs(float(other)),
    )


def verdict(main: Difference, guards: Sequence[Difference]) -> Verdict:
    """See RULE."""
    if main.interval is None or main.count < FEWEST:
        return "too few prompts"
    if not main.clear:
        return "does not hold here"
    return "holds" if all(guard.kept for guard in guards) else "holds in part"


def ratio(rows: Sequence[Row], label: str, arm: str, other: str) -> float | None:
    """A cost of one arm as a multiple of another's, the median over cases; None where it was not measured."""
    pairs = [(row[arm].get(label), row[other].get(label)) for row in rows]
    found = [a / b for a, b in pairs if a is not None and b]
    return float(np.median(found)) if found else None


def summary(claim: Claim, rows: Sequence[Row]) -> dict[str, Any]:
    """Everything that is told of a claim's rows, JSON-able."""
    main = difference(claim, claim.main, rows)
    guards, parts = ([difference(claim, each, rows) for each in some] for some in (claim.guards, claim.parts))
    labels = list(dict.fromkeys(label for row in rows for numbers in row.values() for label in numbers))
    means = {arm.name: {label: _mean(rows, arm.name, label) for label in labels} for arm in claim.arms}
    costs = {arm.name: {label: ratio(rows, label, arm.name, claim.baseline) for label in COSTS} for arm in claim.arms}
    return {
        "prompts": len(rows),
        "verdict": verdict(main, guards),
        "main": {**asdict(main), "right": main.clear},
        "guards": [{**asdict(each), "right": each.kept} for each in guards],
        "parts": [{**asdict(each), "right": each.kept} for each in parts],
        "means": means,
        "cost_beside_baseline": costs,
    }


def _mean(rows: Sequence[Row], arm: str, label: str) -> float | None:
    values = [value for row in rows if (value := row[arm].get(label)) is not None]
    return sum(values) / len(values) if values else None
