"""Feature drift: whether a clip ends with another content than it began with."""

from __future__ import annotations

import numpy as np

from kinema.metrics.ends import ends
from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.metric import metric
from kinema.metrics.temporal.temporal_consistency import cosines
from kinema.metrics.viewing import Viewing


@metric(
    "feature_drift",
    unit="1 - cosine",
    low=0,
    high=2,
    better="lower",
    source='start-end contrast of "FramePack", 2025, arXiv:2504.12626, of features instead of a quality score',
    extractor="clip",
    offline="efficientnet",
    sees="drift",
    ignores="backwards",
)
def feature_drift(clip: Viewing, extractor: Extractor) -> float | None:
    """How far what is shown at the end is from what was shown at the start; 0 when alike.

    1 - cosine of the mean features of the first and of the last 15% of the frames; None for a single frame.
    """
    parts = ends(clip)
    if parts is None:
        return None
    early, late = (extractor.frames(part).mean(0, dtype=np.float64)[None] for part in parts)
    return float(1 - cosines(early, late)[0])
