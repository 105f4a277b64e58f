"""CLIPSIM: how close the frames are to the prompt in the space of a model that knows both."""

from __future__ import annotations

from typing import Any

import numpy as np

from kinema.metrics.asked import asked
from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.features import features
from kinema.metrics.metric import metric
from kinema.metrics.viewing import Viewing

TOLD: dict[str, Any] = dict(unit="cosine", low=-1, high=1, better="higher", needs=("prompt",), sees="noise")


def cosines(vectors: np.ndarray, text: np.ndarray) -> np.ndarray:
    """Cosine of each of (N, D) vectors with one of (D,); (N,), 0 where a vector is 0."""
    a, b = np.asarray(vectors, np.float64), np.asarray(text, np.float64)
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b)
    found: np.ndarray = np.clip(np.divide(a @ b, lengths, out=np.zeros(len(a)), where=lengths > 0), -1, 1)
    return found


@metric("clipsim", source='"GODIVA", 2021, arXiv:2104.14806', extractor="clip", ignores="shuffle", **TOLD)
def clipsim(clip: Viewing, extractor: Extractor) -> float:
    """Mean over frames of the cosine between the frame and the prompt, in CLIP ViT-B/32.

    Not times 100, as some papers print it. Times in the prompt are left out of the text.
    """
    return float(cosines(features(clip, extractor), extractor.text(asked(clip).text)).mean())


@metric(
    "videoclipsim",
    source='"X-CLIP", 2022, arXiv:2208.02816, in place of CLIP',
    extractor="xclip",
    ignores="none",
    **TOLD,
)
def videoclipsim(clip: Viewing, extractor: Extractor) -> float:
    """Cosine between the whole clip and the prompt, in X-CLIP: the words of a movement count too."""
    return float(cosines(extractor.clip(clip.frames, clip.fps)[None], extractor.text(asked(clip).text))[0])
