"""Colourfulness: how far the colours of a clip are from grey, and from each other."""

from __future__ import annotations

import numpy as np

from kinema.metrics.metric import metric
from kinema.metrics.viewing import Viewing


@metric(
    "colourfulness",
    unit="grey levels",
    low=0,
    high=float("inf"),
    better=None,
    source='"Measuring Colourfulness in Natural Images", Hasler and Suesstrunk, 2003, doi:10.1117/12.477378',
    sees="pale",
    ignores="wobble",
)
def colourfulness(clip: Viewing) -> float:
    """How colourful the frames are: 0 for grey, about 100 for very colourful.

    Mean over frames of sqrt(s_rg^2 + s_yb^2) + 0.3 sqrt(m_rg^2 + m_yb^2), where s and m are standard deviation and mean
    over the pixels of a frame of rg = R - G and yb = (R + G) / 2 - B.
    """
    found = []
    for frame in clip.frames:
        red, green, blue = frame.reshape(-1, 3).T.astype(np.float64)
        rg, yb = red - green, (red + green) / 2 - blue
        found.append(np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean()))
    return float(np.mean(found))
