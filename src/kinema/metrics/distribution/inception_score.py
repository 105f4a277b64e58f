"""Inception score: whether each clip is surely of one class, and the set of many."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from kinema.metrics.metric import Features, set_metric
from kinema.metrics.rows import blocks


def mean_score(logits: Iterable[np.ndarray]) -> float:
    """exp(H(mean of p) - mean of H(p)) = exp(E KL(p(y|x) || p(y))) with p the softmax of logits (K,); 1 to K."""
    count, total, certain = 0, np.zeros(1), 0.0
    for rows in blocks(logits):
        rows = rows - rows.max(1, keepdims=True)
        log_p = rows - np.log(np.exp(rows).sum(1, keepdims=True))
        p = np.exp(log_p)
        count, total, certain = count + len(rows), total + p.sum(0), certain + (p * log_p).sum()
    mean = total / count
    entropy = -(mean * np.log(np.maximum(mean, np.finfo(np.float64).tiny))).sum()
    return float(np.exp(max(0.0, entropy + certain / count)))


def split_score(logits: Features, splits: int = 1) -> float:
    """Mean of `mean_score` over so many consecutive parts of the set; the paper takes 10 parts of 5,000 pictures."""
    edges = [i * len(logits) // splits for i in range(splits + 1)]
    return float(np.mean([mean_score(logits[i] for i in range(start, end)) for start, end in pairwise(edges)]))


@set_metric(
    "inception_score",
    unit="classes",
    low=1,
    high=np.inf,
    better="higher",
    source='"Improved Techniques for Training GANs", 2016, arXiv:1606.03498',
    sees="fewer_modes",
    ignores="reordered",
    extractor="world",
    features="logits",
    needs=(),
    clips=32,
)
def inception_score(made: Features) -> float:
    """How many classes the clips show, surely and equally often; it knows no reference.

    exp of the mean of KL(p(y|x) || p(y)) over the set, p the classes that the extractor sees in each clip. 1 where all
    clips are taken for the same, the number of classes where each is surely of one and all are as frequent. The classes
    are what kinema's judge sees happen; with the extractor inception they are those of published scores. One part, not
    ten: small parts make it smaller. It cannot tell clips from copies of them.
    """
    return split_score(made)
