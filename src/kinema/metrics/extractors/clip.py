"""CLIP: pictures and sentences in one space."""

from __future__ import annotations

from kinema.metrics.extractors.extractor import extractor
from kinema.metrics.extractors.joint import Joint


@extractor("clip", gives=("frames", "text"), usual="openai/clip-vit-base-patch32")
class Clip(Joint):
    """Projected image and text embeddings of a CLIP model (Radford et al. 2021, arXiv 2103.00020).

    Every frame is prepared as the checkpoint says (CLIP: shorter edge to 224 bicubic, centre crop). Vectors are not
    unit length: CLIPSIM and its like divide by the length first. A sentence longer than the text encoder reads
    (77 tokens) is cut.
    """

    kind = ("clip", "CLIPModel")
