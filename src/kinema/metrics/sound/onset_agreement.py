"""Onset agreement: whether what is seen to hit is heard then, and nothing else."""

from __future__ import annotations

import numpy as np

from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.impacts import impacts
from kinema.metrics.metric import metric
from kinema.metrics.onsets import onsets
from kinema.metrics.viewing import Viewing

NEAR = 0.05  # seconds, as in the onset task of MIREX; at least one frame


def matched(a: np.ndarray, b: np.ndarray, near: float) -> int:
    """The most pairs of two ordered lists of seconds that lie at most `near` apart, each in one pair only."""
    i = j = count = 0
    while i < len(a) and j < len(b):
        if abs(a[i] - b[j]) <= near:
            i, j, count = i + 1, j + 1, count + 1
        elif a[i] < b[j]:
            i += 1
        else:
            j += 1
    return count


def f_measure(heard: np.ndarray, seen: np.ndarray, near: float) -> float | None:
    """2 matched / (heard + seen); None where both are empty."""
    both = len(heard) + len(seen)
    return 2 * matched(heard, seen, near) / both if both else None


@metric(
    "onset_agreement",
    unit="F-measure",
    low=0,
    high=1,
    better="higher",
    source='onsets and F-measure as MIREX defines them; "Visual rhythm and beat", 2018, doi:10.1145/3197517.3201371',
    extractor="dis",
    needs=("sound",),
    sees="late_sound",
    ignores="quieter",
)
def onset_agreement(clip: Viewing, extractor: Extractor) -> float | None:
    """How well sounds begin when things are seen to hit something: 1 when each does, 0 when none does.

    2 matched / (onsets heard + impacts seen), pairs within 50 ms or one frame, each onset in one pair only. An impact
    is seen where motion ends at once: see `kinema.metrics.impacts`. MIREX compares two lists of sounds; that one of
    them is seen is ours. Most impacts make no sound: compare clips of the same scenes only. None where nothing is heard
    or seen.
    """
    return f_measure(onsets(clip), impacts(clip, extractor), max(NEAR, 1 / clip.fps))
