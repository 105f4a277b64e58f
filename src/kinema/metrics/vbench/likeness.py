"""Cosines of what is seen and what is said."""

from __future__ import annotations

import numpy as np

from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.vbench.sampling import middles
from kinema.metrics.viewing import Viewing

FRAMES = 8  # that VBench's video network looks at


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosines of rows (T, D) and a vector (D,), or of two vectors; 0 where one has length 0."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    length = np.linalg.norm(x, axis=-1) * np.linalg.norm(y)
    found: np.ndarray = np.clip(np.divide(x @ y, length, out=np.zeros_like(length), where=length > 0), -1, 1)
    return found


def clip_and_prompt(clip: Viewing, extractor: Extractor) -> float:
    """The cosine of the whole clip, 8 frames of it, and its prompt; `vbench_temporal_style` has the formula."""
    assert clip.prompt is not None  # a metric that needs one is never asked without
    seen = clip.frames[middles(len(clip), FRAMES)]
    vector = clip.once(("vbench clip", extractor.label), lambda: extractor.clip(seen, clip.fps * FRAMES / len(clip)))
    return float(cosine(vector, extractor.text(clip.prompt)))
