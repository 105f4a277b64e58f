"""VBench, background consistency: whether the scene keeps its looks."""

from __future__ import annotations

from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.metric import metric
from kinema.metrics.vbench.consistency import of_clip
from kinema.metrics.viewing import Viewing


@metric(
    "vbench_background_consistency",
    unit="cosine",
    low=0,
    high=1,
    better="higher",
    source='"VBench", 2023, arXiv:2311.17982',
    extractor="clip",
    offline="efficientnet",
    sees="becomes_another",
    ignores="mirror",
)
def background_consistency(clip: Viewing, extractor: Extractor) -> float | None:
    """As vbench_subject_consistency, with features that tell more of the whole scene: CLIP ViT-B/32.

    A clip that stands still gets 1: read it beside vbench_dynamic_degree.
    """
    return of_clip(clip, extractor)
