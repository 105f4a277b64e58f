"""VBench, appearance style: whether frames look like the style that was asked for."""

from __future__ import annotations

from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.features import features
from kinema.metrics.metric import metric
from kinema.metrics.vbench.claims import asked_style
from kinema.metrics.vbench.likeness import cosine
from kinema.metrics.viewing import Viewing


@metric(
    "vbench_appearance_style",
    unit="cosine",
    low=-1,
    high=1,
    better="higher",
    source='"VBench", 2023, arXiv:2311.17982',
    extractor="clip",
    needs=("prompt",),
    sees="becomes_another",
    ignores="shuffle",
)
def appearance_style(clip: Viewing, extractor: Extractor) -> float | None:
    """Mean over frames of the cosine of a frame and the style asked for, by CLIP ViT-B/32.

    VBench's "logit / 100" is this cosine, since CLIP's logits are 100 cosines. None where the prompt asks for no style:
    see `kinema.metrics.vbench.claims`.
    """
    style = asked_style(clip)
    if style is None:
        return None
    frames = features(clip, extractor)
    return float(cosine(frames, extractor.text(style)).mean())
