"""What an extractor gives of a clip, computed once for all metrics that ask for it."""

from __future__ import annotations

from typing import Literal

import numpy as np

from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.viewing import Viewing


def features(clip: Viewing, extractor: Extractor, what: Literal["frames", "clip", "logits"] = "frames") -> np.ndarray:
    """float32: (T, D) of "frames", (D,) of the whole "clip", (K,) "logits"."""

    def read() -> np.ndarray:
        if what == "frames":
            return extractor.frames(clip.frames)
        of = extractor.clip if what == "clip" else extractor.logits
        return of(clip.frames, clip.fps)

    return clip.once((what, extractor.label), read)
