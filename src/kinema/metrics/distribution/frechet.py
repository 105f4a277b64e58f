"""Frechet distance: how far apart two sets of clips are, each taken for a normal distribution of features."""

from __future__ import annotations

import numpy as np

from kinema.metrics.metric import Features, set_metric
from kinema.metrics.moments import Moments
from kinema.metrics.rows import same_width

FVD = '"Towards Accurate Generative Models of Video", 2018, arXiv:1812.01717'
FID = '"GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", 2017, arXiv:1706.08500'


def frechet_distance(a: Moments, b: Moments, unbiased: bool = True) -> float:
    """|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) of two sets of rows; 0 or more.

    With S = R^T R the trace of the root is the sum of the singular values of R_a R_b^T. Unlike a root of the product
    S_a S_b it stays exact where there are fewer rows than numbers in a row.
    unbiased: covariances over N - 1, as pytorch-fid and torch-fidelity; False: over N, as FVD in StyleGAN-V and cd-fvd.
    """
    same_width(a.mean, b.mean)
    covariances = [each.covariance(unbiased) for each in (a, b)]
    product = _root(covariances[0]) @ _root(covariances[1]).T
    shared = np.linalg.svd(product, compute_uv=False).sum() if product.size else 0.0
    distance = np.square(a.mean - b.mean).sum() + sum(np.trace(s) for s in covariances) - 2 * shared
    return max(0.0, float(distance))


def _root(covariance: np.ndarray) -> np.ndarray:
    """R (r, D) with R^T R = covariance, r its rank."""
    values, vectors = np.linalg.eigh(covariance)
    held = values > values[-1] * len(values) * np.finfo(np.float64).eps
    found: np.ndarray = np.sqrt(values[held])[:, None] * vectors[:, held].T
    return found


@set_metric(
    "frechet",
    unit="squared feature units",
    low=0,
    high=np.inf,
    better="lower",
    source=FID + ", on any features of clips",
    sees="noise",
    ignores="reordered",
    extractor="world",
    features="clip",
)
def frechet(made: Features, reference: Features) -> float:
    """How far apart two sets of clips are in mean and spread of their features; small sets are far apart by themselves.

    Frechet distance |mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)). Covariances are over N - 1. Two sets of one
    distribution are not at distance 0 but at a floor that falls with their sizes: for unit normal features of width
    400, about 301 with 256 clips a set and about 40 with 2048. Compare only numbers of one extractor and of sets of one
    size, or use `frechet_infinity`.
    """
    return frechet_distance(Moments.of(made), Moments.of(reference))


@set_metric(
    "fvd",
    unit="squared feature units",
    low=0,
    high=np.inf,
    better="lower",
    source=FVD,
    sees="noise",
    ignores="reordered",
    extractor="i3d",
    features="clip",
)
def fvd(made: Features, reference: Features) -> float:
    """Frechet video distance: the Frechet distance between I3D features of two sets of clips.

    Covariances are over N as in StyleGAN-V and cd-fvd, whose numbers are the ones usually published; the first FVD code
    took N - 1. Published protocols take 2048 clips a set of 16 frames each; the content-debiased distance of "On the
    Content Bias in Frechet Video Distance", 2024, arXiv:2404.12391, is this one with the extractor videomae.
    """
    return frechet_distance(Moments.of(made), Moments.of(reference), unbiased=False)


@set_metric(
    "fid",
    unit="squared feature units",
    low=0,
    high=np.inf,
    better="lower",
    source=FID,
    sees="blur",
    ignores="shuffle",
    extractor="inception",
    features="frames",
    offline="efficientnet",
)
def fid(made: Features, reference: Features) -> float:
    """Frechet Inception distance: the Frechet distance between Inception features of the frames of two sets of clips.

    Every frame is a row, its order in time plays no part. Covariances are over N - 1. Frames of one clip are alike, so
    the sets count for less than their number of frames; published numbers take 50,000 pictures that are not.
    """
    return frechet_distance(Moments.of(made), Moments.of(reference))
