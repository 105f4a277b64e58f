"""VBench's totals among the results of an evaluation: what they are, and why one is missing or not comparable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from kinema.evaluation.words import number
from kinema.metrics.vbench.total import DIMENSIONS, OFFICIAL, QUALITY, SEMANTIC, totals


def summarise(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """Quality, semantic and total from the means of metrics by label; None when no dimension of VBench is among them.

    `missing` are the dimensions without a number; `stand_ins` those whose network is not VBench's own, and `official`
    says that there are none. Of a dimension measured with several extractors VBench's own counts, else the first.
    """
    used: dict[str, str] = {}
    for label in sorted(metrics, key=lambda label: (not _official(label), label)):
        used.setdefault(label.partition(":")[0], label)
    used = {name: used[name] for name in DIMENSIONS if name in used}
    if not used:
        return None
    stand_ins = [label for label in used.values() if not _official(label)]
    return {
        **asdict(totals({name: metrics[label]["mean"] for name, label in used.items()})),
        "official": not stand_ins,
        "stand_ins": stand_ins,
        "missing": [name for name in DIMENSIONS if name not in used],
    }


def _official(label: str) -> bool:
    name, _, extractor = label.partition(":")
    return name in OFFICIAL and OFFICIAL[name] == (extractor or None)


def line(vbench: Mapping[str, Any]) -> str:
    """The totals in words."""
    missing = set(vbench["missing"])
    needs = {
        "quality": [name for name in QUALITY if name in missing],
        "semantic": [name for name in SEMANTIC if name in missing],
        "total": [name for name in ("quality", "semantic") if vbench[name] is None],
    }
    told = [
        f"{name} needs {', '.join(lacking)}" if lacking else f"{name} {number(vbench[name])}"
        for name, lacking in needs.items()
    ]
    if not vbench["official"]:
        told.append(f"not comparable with the leaderboard: {', '.join(vbench['stand_ins'])}")
    return f"VBench: {'; '.join(told)}"
