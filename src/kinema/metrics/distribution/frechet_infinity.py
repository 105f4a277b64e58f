"""What a number of a set would be if the set were endless: a line through its values at growing sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from kinema.metrics.distribution.frechet import frechet_distance
from kinema.metrics.distribution.inception_score import mean_score
from kinema.metrics.metric import Features, set_metric
from kinema.metrics.moments import Moments

SOURCE = '"Effectively Unbiased FID and Inception Score and where to find them", 2020, arXiv:1911.07023'
POINTS = 15  # sizes, from a tenth of the set to all of it
LEAST = 20  # clips of a set that a line can be drawn through


def at_infinity(features: Features, measure: Callable[[Iterable[np.ndarray]], float], rounds: int = 1) -> float:
    """The value at 1/n = 0 of the line through (1/n, measure(features of n clips)), by least squares over 15 sizes n.

    Clips are drawn by chance, the same way each time and whatever their order. Where several draws of one size fit into
    the set without a clip in common, their mean is taken, and all that in each of several rounds: it has the expected
    value of the paper's single draw, and varies less.
    """
    count = len(features)
    by_content = np.argsort([np.mean(each, dtype=np.float64) for each in features], kind="stable")
    sizes = np.unique(np.linspace(max(2, count // 10), count, POINTS).astype(int))
    values = np.zeros(len(sizes))
    rng = np.random.default_rng(0)
    for _ in range(rounds):
        order = rng.permutation(by_content)
        for point, n in enumerate(sizes.tolist()):
            draws = [order[start : start + n] for start in range(0, count - n + 1, n)]
            values[point] += np.mean([measure(features[i] for i in draw) for draw in draws]) / rounds
    return float(np.polyfit(1 / sizes, values, 1)[1])


@set_metric(
    "frechet_infinity",
    unit="squared feature units",
    low=-np.inf,
    high=np.inf,
    better="lower",
    source=SOURCE,
    sees="freeze",
    ignores="reordered",
    extractor="world",
    features="clip",
    least=LEAST,
    clips=32,
)
def frechet_infinity(made: Features, reference: Features) -> float:
    """Frechet distance of an endless set of made clips, by a straight line through its values over 1/N at 15 sizes.

    It takes away the bias that comes from the number of made clips; the one of the reference set stays, as in the
    paper, so use a large one. May be below 0 where the sets are equal.
    """
    fixed = Moments.of(reference)
    return at_infinity(made, lambda chosen: frechet_distance(Moments.of(chosen), fixed))


@set_metric(
    "inception_score_infinity",
    unit="classes",
    low=-np.inf,
    high=np.inf,
    better="higher",
    source=SOURCE,
    sees="fewer_modes",
    ignores="reordered",
    extractor="world",
    features="logits",
    needs=(),
    least=LEAST,
    clips=32,
)
def inception_score_infinity(made: Features) -> float:
    """Inception score of an endless set, by a straight line through its values over 1/N at 15 sizes."""
    return at_infinity(made, mean_score, rounds=8)
