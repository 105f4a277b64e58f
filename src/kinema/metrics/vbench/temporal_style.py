"""VBench, temporal style: whether the clip moves in the style that was asked for."""

from __future__ import annotations

from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.metric import metric
from kinema.metrics.vbench.likeness import clip_and_prompt
from kinema.metrics.viewing import Viewing


@metric(
    "vbench_temporal_style",
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
def temporal_style(clip: Viewing, extractor: Extractor) -> float:
    """Cosine of the clip and its prompt, by ViCLIP, which looks at 8 frames: the middles of 8 equal parts.

    VBench asks it of prompts that name a style in time ("in super slow motion", "zoom in"). It is the same formula as
    vbench_overall_consistency, on other prompts.
    """
    return clip_and_prompt(clip, extractor)
