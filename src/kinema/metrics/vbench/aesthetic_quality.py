"""VBench, aesthetic quality: how beautiful people would find the frames."""

from __future__ import annotations

import math

from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.metric import metric
from kinema.metrics.viewing import Viewing


@metric(
    "vbench_aesthetic_quality",
    unit="a tenth of LAION's score",
    low=-math.inf,
    high=math.inf,
    better="higher",
    source='"VBench", 2023, arXiv:2311.17982, with the linear head of LAION-Aesthetics, 2022',
    extractor="laion",
    sees="blur",
    ignores="shuffle",
)
def aesthetic_quality(clip: Viewing, extractor: Extractor) -> float:
    """Mean over frames of LAION's aesthetic score, divided by 10; most lie between 0.3 and 0.7.

    A linear head on unit-length CLIP ViT-L/14 features, which nothing holds between 0 and 1.
    """
    return float(extractor.quality(clip.frames).mean(dtype="float64"))
