"""VBench, imaging quality: noise, blur and exposure of the frames."""

from __future__ import annotations

import math

from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.metric import metric
from kinema.metrics.viewing import Viewing


@metric(
    "vbench_imaging_quality",
    unit="a hundredth of MUSIQ's score",
    low=-math.inf,
    high=math.inf,
    better="higher",
    source='"VBench", 2023, arXiv:2311.17982, with "MUSIQ", 2021, arXiv:2108.05997',
    extractor="musiq",
    sees="blur",
    ignores="shuffle",
)
def imaging_quality(clip: Viewing, extractor: Extractor) -> float:
    """Mean over frames of the MUSIQ score, trained on SPAQ, divided by 100; most lie between 0 and 1."""
    return float(extractor.quality(clip.frames).mean(dtype="float64"))
