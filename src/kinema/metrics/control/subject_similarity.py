"""Subject similarity: whether the clip shows the same thing as the reference pictures."""

from __future__ import annotations

import numpy as np

from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.features import features
from kinema.metrics.metric import metric
from kinema.metrics.viewing import Viewing


def mean_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Mean cosine of all pairs of a row of a (P, D) and a row of b (Q, D); a row of zeros counts 0."""
    means = []
    for rows in (a, b):
        rows = rows.astype(np.float64)
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        means.append((rows / np.where(length > 0, length, 1)).mean(0))
    return float(np.clip(means[0] @ means[1], -1, 1))  # the mean of all products is the product of the means


@metric(
    "subject_similarity",
    unit="cosine",
    low=-1,
    high=1,
    better="higher",
    source='"DreamBooth", 2022, arXiv:2208.12242 (its DINO score)',
    needs=("reference",),
    sees="noise",
    ignores="mirror",
    extractor="dino",
    offline="efficientnet",
)
def subject_similarity(clip: Viewing, extractor: Extractor) -> float:
    """Mean cosine between the features of all frames of the clip and all of the reference, whole pictures.

    The reference may be of any size and length: pictures of the subject alone are best, since what is around it counts
    too. Also a clip that is its own reference stays below 1 where its frames differ.
    """
    assert clip.reference is not None
    return mean_cosine(features(clip, extractor), features(clip.reference, extractor))
