"""VBench, multiple objects: whether all things that were asked for are there together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from kinema.metrics.extractors.extractor import Box, Extractor
from kinema.metrics.metric import metric
from kinema.metrics.vbench.claims import asked_things
from kinema.metrics.vbench.finding import all_known, found
from kinema.metrics.viewing import Viewing


def all_there(boxes: Sequence[Box], things: Sequence[str]) -> bool:
    """Whether a frame has a box for each thing; as many of one kind as are asked for."""
    return not Counter(things) - Counter(box.phrase for box in boxes)


@metric(
    "vbench_multiple_objects",
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
def multiple_objects(clip: Viewing, extractor: Extractor) -> float | None:
    """Share of 16 frames in which all things that the prompt names are found; None where it names fewer than two.

    VBench asks for two of different kinds and looks with GRiT, which no library here has: numbers of the usual
    extractor here are not comparable with published ones. `world` was trained on
    clips of one thing: of 7 rendered clips of two it finds both in half of the frames. Do not rely on it here.
    """
    things = asked_things(clip)
    if len(things) < 2 or not all_known(extractor, things):
        return None
    frames = found(clip, extractor, things)
    return sum(all_there(boxes, things) for boxes in frames) / len(frames)
