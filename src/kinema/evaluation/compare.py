"""`kinema.compare`: two folders of clips of the same names, pair by pair."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kinema.core.errors import KinemaError
from kinema.evaluation.evaluate import Tell, evaluate
from kinema.evaluation.results import Evaluation
from kinema.files import make_folder, write_text
from kinema.metrics.statistics import bootstrap, wilson

FORMAT = 1
PRODUCT = "compare.json"
OURS = ("a", "b", PRODUCT)
LEAST_PAIRS = 6  # with fewer, even one sign throughout is no proof: 2 / 2^5 is above 0.05

Place = str | os.PathLike[str]


@dataclass(frozen=True)
class Comparison:
    """Results of `kinema.compare`: what compare.json holds."""

    results: dict[str, Any]

    def __getitem__(self, metric: str) -> dict[str, Any]:
        """Of one metric: means of both, their difference with its interval, win-rate, verdict."""
        found: dict[str, Any] = self.results["metrics"][metric]
        return found


def compare(
    a: Place,
    b: Place,
    *,
    reference: Place | None = None,
    prompts: Place | None = None,
    metrics: str | Sequence[str] | None = None,
    out: Place | None = None,
    workers: int | str = 0,
    restart: bool = False,
    tell: Tell | None = None,
) -> Comparison:
    """Compares the clips of `b` with those of `a` that have the same names.

    Either may be a folder of clips, which is evaluated first, or the folder an evaluation was written to.

    Args:
        metrics: as in `kinema.evaluate`; left out, those of what is evaluated already, else "quick".
        out: folder for compare.json, and for the evaluations in `a` and `b` in it; without one nothing is kept.

    Raises:
        KinemaError: one sentence, when a folder or a metric is missing, or no clip of `a` has a like in `b`.
    """
    ready = {side: Evaluation.read(place) for side, place in (("a", a), ("b", b)) if _is_evaluation(place)}
    wanted = metrics or next((list(_measured(each)) for each in ready.values()), "quick")
    if out is not None:
        _refuse_others(make_folder(out))

    def side(name: str, place: Place) -> Evaluation:
        kept = None if out is None else Path(out) / name
        return ready.get(name) or evaluate(
            place, reference=reference, prompts=prompts, metrics=wanted, out=kept, workers=workers, restart=restart,
            tell=tell,
        )  # fmt: skip

    first, other = side("a", a), side("b", b)
    results = paired(first, other, _labels((first, other), metrics if len(ready) == 2 else None))
    if out is not None:
        write_text(Path(out) / PRODUCT, json.dumps(results, indent=1, allow_nan=False) + "\n")
    return Comparison(results)


def _refuse_others(folder: Path) -> None:
    """Raises: KinemaError when the folder holds what no comparison has written."""
    others = sorted(path.name for path in folder.iterdir() if path.name not in OURS and not path.name.startswith("."))
    if others and not (folder / PRODUCT).exists():
        raise KinemaError(f"the folder {folder} holds other things ({others[0]}); name a new one with --out")


def _is_evaluation(place: Place) -> bool:
    return (Path(place) / "results.json").is_file()


def _measured(done: Evaluation) -> dict[str, Any]:
    return {**done.results["metrics"], **done.results["sets"]}


def _labels(sides: Sequence[Evaluation], asked: str | Sequence[str] | None) -> list[str]:
    """Metrics that both have, of those asked for. Raises: KinemaError when there are none."""
    both = [label for label in sides[0].values if label in sides[1].values]
    if not both and not {*sides[0].results["sets"]} & {*sides[1].results["sets"]}:
        raise KinemaError("the two have no metric in common; evaluate both with the same --metrics")
    if asked is None:
        return both
    texts = [part.strip() for text in ([asked] if isinstance(asked, str) else asked) for part in text.split(",")]
    found = []
    for text in texts:
        mine = [label for label in both if text in (label, label.partition(":")[0])]
        if not mine:
            raise KinemaError(f"metric {text!r} is not in both evaluations; these are: {', '.join(both)}")
        found += mine
    return sorted(set(found))


def paired(a: Evaluation, b: Evaluation, labels: Sequence[str]) -> dict[str, Any]:
    """What compare.json holds. Raises: KinemaError when no name is in both."""
    places = {name: i for i, name in enumerate(b.names)}
    common = [(i, places[name]) for i, name in enumerate(a.names) if name in places]
    if not common:
        raise KinemaError(
            f"no clip has the same name in both; the first has clips like {a.names[0]!r}, the other {b.names[0]!r}"
        )
    of_a, of_b = (np.array(side) for side in zip(*common, strict=True))
    metrics = {}
    for label in labels:
        found = difference(a.values[label][of_a], b.values[label][of_b], a.results["metrics"][label]["better"])
        metrics[label] = {**{k: a.results["metrics"][label][k] for k in ("summary", "unit", "better")}, **found}
    return {
        "format": FORMAT,
        "a": a.results["settings"]["videos"],
        "b": b.results["settings"]["videos"],
        "pairs": len(common),
        "only_in_a": len(a.names) - len(common),
        "only_in_b": len(b.names) - len(common),
        "warnings": _warnings(a, b, common),
        "not_measured": [row for row in a.results["not_measured"] if row["metric"] not in _measured(b)],
        "metrics": metrics,
        "sets": {
            label: {**{k: m[k] for k in ("summary", "unit", "better")}, "a": m["value"], "b": other["value"]}
            for label, m in a.results["sets"].items()
            if (other := b.results["sets"].get(label)) is not None
        },
    }


def difference(a: np.ndarray, b: np.ndarray, better: str | None) -> dict[str, Any]:
    """Two numbers of each pair, (N,) each, NaN where there is none.

    `difference` is the mean of b - a with its 95% bootstrap interval over pairs, `win_rate` the share of pairs in which
    b is better, ties counting half, with its Wilson interval; `verdict` is "a" or "b" for the better one (without a
    direction: the higher one) when the interval leaves zero out and there are at least LEAST_PAIRS pairs, else None.
    """
    there = ~(np.isnan(a) | np.isnan(b))
    a, b = a[there], b[there]
    n = len(a)
    steps = b - a
    ends = bootstrap(steps)
    sign = -1 if better == "lower" else 1
    wins = float((steps * sign > 0).sum() + 0.5 * (steps == 0).sum())
    sure = ends is not None and n >= LEAST_PAIRS and (ends[0] > 0 or ends[1] < 0)
    return {
        "n": n,
        "a": float(a.mean()) if n else None,
        "b": float(b.mean()) if n else None,
        "difference": float(steps.mean()) if n else None,
        "interval": None if ends is None else list(ends),
        "win_rate": wins / n if n and better else None,
        "win_rate_interval": list(wilson(wins, n)) if n and better else None,
        "verdict": ("b" if steps.mean() * sign > 0 else "a") if sure else None,
    }


def _warnings(a: Evaluation, b: Evaluation, common: Sequence[tuple[int, int]]) -> list[str]:
    """What makes the comparison less fair than it looks."""
    found = []
    other = sum(a.prompts[i] != b.prompts[j] for i, j in common)
    if other:
        found.append(f"{other} of {len(common)} pairs were made from different prompts")
    for what in ("reference", "kinema"):
        one, two = a.results["settings"][what], b.results["settings"][what]
        if one != two:
            noun = "the reference" if what == "reference" else "the version of kinema"
            found.append(f"{noun} of the first is {one or 'none'}, that of the other {two or 'none'}")
    for side, name in ((a, "first"), (b, "other")):
        if side.results["failed"]:
            found.append(f"{len(side.results['failed'])} clips of the {name} failed and are left out")
    alone = sorted({*_measured(a)} ^ {*_measured(b)})
    if alone:
        found.append(f"measured in one of the two only: {', '.join(alone)}")
    return found
