"""VBench, overall consistency: whether the clip shows what its prompt says."""

from __future__ import annotations

from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.metric import metric
from kinema.metrics.vbench.likeness import clip_and_prompt
from kinema.metrics.viewing import Viewing


@metric(
    "vbench_overall_consistency",
    unit="cosine",
    low=-1,
    high=1,
    better="higher",
    source='"VBench", 2023, arXiv:2311.17982, with "InternVid", 2023, arXiv:2307.06942',
    extractor="viclip",
    needs=("prompt",),
    sees="becomes_another",
    ignores="none",
)
def overall_consistency(clip: Viewing, extractor: Extractor) -> float:
    """Cosine of the clip and its prompt, by ViCLIP, which looks at 8 frames: the middles of 8 equal parts."""
    return clip_and_prompt(clip, extractor)
