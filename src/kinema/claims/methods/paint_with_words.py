"""Paint-with-words: what a word names is in the box that is painted for it, also in one that moves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kinema.claims.bench.claim import Arm, Case, Claim, Comparison
from kinema.claims.bench.scenes import at_rest, one_goes, thing
from kinema.layers.regions import read_regions
from kinema.metrics.extractors.extractor import load_extractor
from kinema.metrics.objects import objects
from kinema.metrics.staging import box_overlap
from kinema.metrics.viewing import Viewing

TOP, EDGE, PARTS = 0.45, 0.35, 4  # of a box, shares of the picture; and how many boxes stand one behind the other
WAYS = ((0.05, 0.05), (0.6, 0.6), (0.05, 0.6), (0.6, 0.05))  # left edges of the first box and of the last


def lefts(number: int) -> list[float]:
    """Left edges of the boxes of a case, in time: two cases stand still, two move."""
    return [round(left, 3) for left in np.linspace(*WAYS[number % len(WAYS)], PARTS)]


def painted(count: int, backbone: Any) -> Sequence[Case]:
    """A thing at rest in the prompt, and boxes for it."""
    cases = []
    for number, spec in enumerate(one_goes(count)):
        boxes = [
            f"{thing(spec)}: {left} {TOP} {left + EDGE:.3f} {TOP + EDGE} @ {100 * i // PARTS}-{100 * (i + 1) // PARTS}%"
            for i, left in enumerate(lefts(number))
        ]
        options = {"paint_with_words": {"regions": "; ".join(boxes)}}
        cases.append(Case(text=at_rest(spec), spec=spec, options=options))
    return cases


def in_box(clip: Viewing, case: Case) -> float | None:
    """Mean overlap of the thing with the box that is its own at the time; things too many count as missed."""
    regions = read_regions(case.options["paint_with_words"]["regions"], "the claim")
    now = [regions[t * PARTS // len(clip)] for t in range(len(clip))]
    planned = np.array([[(r.left, r.top, r.right, r.bottom) for r in now]])
    return box_overlap(clip, planned, load_extractor("world"))


def one_thing(clip: Viewing, case: Case) -> float:
    """1 when the clip shows one thing."""
    return float(len(objects(clip, load_extractor("world"))) == 1)


CLAIM = Claim(
    name="paint_with_words",
    says="a thing is in the box that is painted for its word, which may move",
    paper="no figure; pictures of painted words with eDiff-I",
    arms=(
        Arm(name="plain"),
        Arm(name="painted", techniques=("paint_with_words",)),
        Arm(name="half the weight", techniques=("paint_with_words:weight=0.1",)),
        Arm(name="twice the weight", techniques=("paint_with_words:weight=0.4",)),
    ),
    baseline="plain",
    method="painted",
    main=Comparison(measure="overlap with the box", arm="painted", against="plain", better="higher"),
    guards=(
        # At least twice as much.
        Comparison(measure="overlap with the box", arm="painted", against="plain", better="higher", share=-1.0),
        Comparison(measure="one thing", arm="painted", against="plain", better="higher", slack=0.05),
        Comparison(measure="kind_accuracy", arm="painted", against="plain", slack=0.05),
        Comparison(measure="colour_accuracy", arm="painted", against="plain", slack=0.05),
    ),
    cases=painted,
    measures={"overlap with the box": in_box, "one thing": one_thing},
    steps=20,
    notes={
        "mini": "On mini, whose text is read by cross-attention as eDiff-I's is. The thing comes to the box but leaves "
        "parts where it would have been by itself; moving boxes are followed part of the way.",
    },
)
