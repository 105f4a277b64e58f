"""VBench, object class: whether the thing that was asked for is there."""

from __future__ import annotations

from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.metric import metric
from kinema.metrics.vbench.claims import asked_things
from kinema.metrics.vbench.finding import all_known, found
from kinema.metrics.viewing import Viewing


@metric(
    "vbench_object_class",
    unit="share of frames",
    low=0,
    high=1,
    better="higher",
    source='"VBench", 2023, arXiv:2311.17982',
    extractor="owlv2",
    offline="world",
    needs=("prompt",),
    sees="becomes_another",
    ignores="mirror",
)
def object_class(clip: Viewing, extractor: Extractor) -> float | None:
    """Share of 16 frames in which the first thing that the prompt names is found.

    VBench looks with GRiT, which no library here has; the usual one here is an open-vocabulary detector, and its
    numbers are not comparable with published ones. None where the prompt names nothing that the extractor knows.
    """
    things = asked_things(clip)[:1]
    if not things or not all_known(extractor, things):
        return None
    frames = found(clip, extractor, things)
    return sum(bool(boxes) for boxes in frames) / len(frames)
