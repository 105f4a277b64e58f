"""VBench, spatial relationship: whether two things stand beside each other as asked; and ours, on the right side."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from kinema.metrics.extractors.extractor import Box, Extractor
from kinema.metrics.metric import metric
from kinema.metrics.vbench.claims import Relation, asked_relation
from kinema.metrics.vbench.finding import all_known, found
from kinema.metrics.viewing import Viewing

Edges = Sequence[float]  # x0, y0, x1, y1 pixels
OVERLAP = 0.1  # intersection over union up to which two things count as apart


def intersection_over_union(a: Edges, b: Edges) -> float:
    """Of two boxes."""
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, wide) * max(0.0, high)
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / both if both else 0.0


def beside(a: Edges, side: str, b: Edges, signed: bool = False) -> float:
    """How well box a stands on that side of box b: 1 apart, 0.1 / IoU when they overlap more than 0.1, else 0.

    For left and right the centres have to be further apart in x than in y, for top and bottom in y than in x. VBench
    does not look at which side it is; `signed` does.
    """
    dx, dy = (a[0] + a[2] - b[0] - b[2]) / 2, (a[1] + a[3] - b[1] - b[3]) / 2  # from b to a
    along, across = (dx, dy) if side in ("left", "right") else (dy, dx)
    if abs(along) <= abs(across) or (signed and (along < 0) != (side in ("left", "top"))):
        return 0.0
    overlap = intersection_over_union(a, b)
    return 1.0 if overlap < OVERLAP else OVERLAP / overlap


def of_frame(boxes: Sequence[Box], asked: Relation, signed: bool) -> float:
    """The best pair of a frame. VBench takes any two boxes of either thing; signed, one of each."""
    if signed:
        pairs = [(a, b) for a in boxes for b in boxes if a.phrase == asked.a and b.phrase == asked.b and a is not b]
    else:
        pairs = list(combinations(boxes, 2))
    return max((beside(a.edges, asked.side, b.edges, signed) for a, b in pairs), default=0.0)


def _score(clip: Viewing, extractor: Extractor, signed: bool) -> float | None:
    asked = asked_relation(clip)
    if asked is None or not all_known(extractor, (asked.a, asked.b)):
        return None
    frames = found(clip, extractor, (asked.a, asked.b))
    return float(np.mean([of_frame(boxes, asked, signed) for boxes in frames]))


@metric(
    "vbench_spatial_relationship",
    unit="share of frames",
    low=0,
    high=1,
    better="higher",
    source='"VBench", 2023, arXiv:2311.17982',
    extractor="owlv2",
    needs=("prompt",),
    sees="becomes_another",
    ignores="mirror",
)
def spatial_relationship(clip: Viewing, extractor: Extractor) -> float | None:
    """Mean over 16 frames of how well two things stand beside, or above, each other; see `beside`.

    Which of them is left is not looked at, as in VBench; for that see signed_spatial_relationship. VBench finds them
    with GRiT: not comparable with published numbers. None where the prompt names no left, right, top or bottom.
    `world` was trained on clips of one thing and often misses one of two: do not rely on it here.
    """
    return _score(clip, extractor, signed=False)


@metric(
    "signed_spatial_relationship",
    unit="share of frames",
    low=0,
    high=1,
    better="higher",
    source='"VBench", 2023, arXiv:2311.17982, with the side looked at',
    extractor="owlv2",
    needs=("prompt",),
    sees="becomes_another",
    ignores="none",
)
def signed_spatial_relationship(clip: Viewing, extractor: Extractor) -> float | None:
    """As vbench_spatial_relationship, but things on the wrong side count nothing, and two of one thing are no pair."""
    return _score(clip, extractor, signed=True)
