"""VBench, scene: whether the place is the one that was asked for."""

from __future__ import annotations

from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.metric import metric
from kinema.metrics.vbench.claims import asked_place
from kinema.metrics.vbench.finding import FRAMES
from kinema.metrics.vbench.sampling import middles
from kinema.metrics.viewing import Viewing


@metric(
    "vbench_scene",
    unit="share of frames",
    low=0,
    high=1,
    better="higher",
    source='"VBench", 2023, arXiv:2311.17982',
    extractor="blip",
    offline="world",
    needs=("prompt",),
    sees="becomes_another",
    ignores="mirror",
)
def scene(clip: Viewing, extractor: Extractor) -> float | None:
    """Share of 16 frames whose caption holds all words of the place that was asked for, also inside of longer words.

    VBench's captions are those of Tag2Text, which no library here has; numbers of the usual extractor here are not
    comparable with published ones. None where the prompt names no place.
    """
    place = asked_place(clip)
    if place is None:
        return None
    seen = clip.frames[middles(len(clip), FRAMES)]
    captions = clip.once(("captions", extractor.label), lambda: extractor.captions(seen))
    return sum(all(word in caption for word in place.lower().split()) for caption in captions) / len(captions)
