"""Features of a set of clips as rows of a matrix, a bounded number of them at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from kinema.core.errors import KinemaError
from kinema.metrics.metric import Features

MOST = 10_000  # rows that metrics which compare every pair look at


def blocks(features: Iterable[np.ndarray], size: int = 1024) -> Iterator[np.ndarray]:
    """Features of clips, each (D,) or (T, D), as blocks (n, D) float64 of at most `size` rows; a frame is a row.

    Raises: KinemaError when they are of different widths, have another shape or are not finite.
    """
    held: list[np.ndarray] = []
    count, width = 0, None
    if isinstance(features, np.ndarray) and features.ndim == 2 and features.size:  # many rows at once are the same rows
        features = np.split(features, range(size, len(features), size))
    for feature in features:
        rows = np.atleast_2d(np.asarray(feature, dtype=np.float64))
        width = width or rows.shape[-1]
        if rows.ndim != 2 or rows.shape[1] != width or not rows.size:
            raise KinemaError(f"a clip has features {np.shape(feature)}; use (D,) or (T, D) with one D, here {width}")
        if not np.isfinite(rows).all():
            raise KinemaError("a clip has features that are not finite numbers; leave it out")
        while count + len(rows) >= size:
            held.append(rows[: size - count])
            rows = rows[size - count :]
            yield np.concatenate(held)
            held, count = [], 0
        held.append(rows)
        count += len(rows)
    if count:
        yield np.concatenate(held)


def evenly(count: int, most: int = MOST) -> np.ndarray:
    """Indices 0 .. count - 1; of more than `most`, that many spread evenly from first to last."""
    return np.linspace(0, count - 1, min(most, count)).round().astype(int)


def spread(features: Features, most: int = MOST) -> np.ndarray:
    """All rows (N, D) float64; of more than `most`, that many spread evenly from first to last."""
    ends = np.cumsum([1 if np.ndim(each) == 1 else len(each) for each in features])
    chosen = evenly(int(ends[-1]), most)
    cuts = np.searchsorted(chosen, ends)  # of clip i, chosen[cuts[i - 1] : cuts[i]]

    def kept() -> Iterator[np.ndarray]:
        first = 0
        for feature, end, cut in zip(features, ends, cuts, strict=True):
            if first < cut:
                rows = np.atleast_2d(feature)
                yield rows[chosen[first:cut] - (end - len(rows))]
            first = cut

    return np.concatenate(list(blocks(kept())))


def same_width(a: np.ndarray, b: np.ndarray) -> None:
    """Raises: KinemaError when two sets of rows have features of different widths."""
    if a.shape[-1] != b.shape[-1]:
        raise KinemaError(
            f"the sets have {a.shape[-1]} and {b.shape[-1]} numbers a row; use features of one extractor for both"
        )
