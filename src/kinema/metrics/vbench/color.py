"""VBench, colour: whether a thing has the colour that was asked for."""

from __future__ import annotations

from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.metric import metric
from kinema.metrics.vbench.claims import COLOURS, asked_colour
from kinema.metrics.vbench.finding import all_known, found
from kinema.metrics.viewing import Viewing


@metric(
    "vbench_color",
    unit="share of frames",
    low=0,
    high=1,
    better="higher",
    source='"VBench", 2023, arXiv:2311.17982',
    extractor="owlv2",
    offline="world",
    needs=("prompt",),
    sees="turning_hues",
    ignores="mirror",
)
def color(clip: Viewing, extractor: Extractor) -> float | None:
    """Of those of 16 frames in which the thing is found in any of 12 colours, the share with the colour asked for.

    None where the prompt names no colour, the extractor does not know it, or the thing is in no frame: such clips leave
    the mean, as in VBench, which reads colours in GRiT's captions. Here each frame counts with the surest of "red car",
    "blue car" ...: not comparable with published numbers.
    """
    asked = asked_colour(clip)
    if asked is None or not all_known(extractor, [" ".join(asked)]):
        return None
    colour, thing = asked
    phrases = [f"{word} {thing}" for word in dict.fromkeys((colour, *COLOURS)) if extractor.knows(f"{word} {thing}")]
    surest = [max(boxes, key=lambda box: box.score).phrase for boxes in found(clip, extractor, phrases) if boxes]
    return surest.count(f"{colour} {thing}") / len(surest) if surest else None
