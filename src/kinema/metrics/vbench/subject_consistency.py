"""VBench, subject consistency: whether the main thing keeps its looks."""

from __future__ import annotations

from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.metric import metric
from kinema.metrics.vbench.consistency import of_clip
from kinema.metrics.viewing import Viewing


@metric(
    "vbench_subject_consistency",
    unit="cosine",
    low=0,
    high=1,
    better="higher",
    source='"VBench", 2023, arXiv:2311.17982',
    extractor="dino",
    offline="efficientnet",
    sees="becomes_another",
    ignores="mirror",
)
def subject_consistency(clip: Viewing, extractor: Extractor) -> float | None:
    """Mean similarity of each frame's features to those of the frame before and of the first frame.

    See `consistency`. With DINO ViT-B/16 this is VBench's number, but for how a picture that is not square becomes
    square: transformers squeezes it, VBench does not. A clip that stands still gets 1: read it beside
    vbench_dynamic_degree.
    """
    return of_clip(clip, extractor)
