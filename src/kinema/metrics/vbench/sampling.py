"""Which frames of a clip VBench looks at."""

from __future__ import annotations

import numpy as np


def middles(length: int, count: int) -> np.ndarray:
    """`count` frame numbers: the middle of each of `count` equal parts of `length` frames.

    A shorter clip gives all its frames, and the last again for those that lack, as VBench does.
    """
    parts = min(length, count)
    edges = np.linspace(0, length, parts + 1).astype(int)
    found = (edges[:-1] + edges[1:] - 1) // 2
    return np.pad(found, (0, count - parts), mode="edge")
