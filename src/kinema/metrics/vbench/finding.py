"""Where the things are that a prompt asks for, in the 16 frames that VBench looks at."""

from __future__ import annotations

from collections.abc import Sequence

from kinema.metrics.extractors.extractor import Box, Extractor
from kinema.metrics.vbench.sampling import middles
from kinema.metrics.viewing import Viewing

FRAMES = 16


def found(clip: Viewing, extractor: Extractor, phrases: Sequence[str]) -> list[list[Box]]:
    """What the extractor finds of these phrases in each of 16 frames, the middles of 16 equal parts of the clip.

    VBench makes frames smaller whose shorter side is above 768 pixels; here the extractor chooses its size.
    """
    wanted = tuple(dict.fromkeys(phrases))

    def look() -> list[list[Box]]:
        return extractor.boxes(clip.frames[middles(len(clip), FRAMES)], wanted)

    return clip.once(("boxes", extractor.label, wanted), look)


def all_known(extractor: Extractor, phrases: Sequence[str]) -> bool:
    """Whether the extractor can say of all of them that they are there or not."""
    return all(extractor.knows(phrase) for phrase in phrases)
