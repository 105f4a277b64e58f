"""Structural similarity: how alike the patterns of a clip and its reference are, place by place."""

from __future__ import annotations

import numpy as np

from kinema.metrics.metric import metric
from kinema.metrics.optional import library
from kinema.metrics.viewing import Viewing, same_size

WINDOW = 11  # pixels, the side of the paper's window; smaller pictures are continued by their edge


def similarity(a: np.ndarray, b: np.ndarray) -> float:
    """SSIM of two pictures (H, W, 3) uint8, -1..1: (2 m_a m_b + c1) (2 s_ab + c2) / ((m_a^2 + m_b^2 + c1) (s_a^2 +
    s_b^2 + c2)) with means m, variances s^2 and the covariance s_ab under a Gaussian window of sigma 1.5 pixels, 11 a
    side; c1 = (0.01 * 255)^2, c2 = (0.03 * 255)^2; mean over places whose window is inside the picture, and colours.
    """
    lacking = [(0, max(0, WINDOW - n)) for n in a.shape[:2]]
    if any(more for _, more in lacking):
        a, b = (np.pad(x, (*lacking, (0, 0)), mode="edge") for x in (a, b))
    value = library("skimage.metrics").structural_similarity(
        a, b, channel_axis=-1, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    return float(value)


@metric(
    "ssim",
    unit="",
    low=-1,
    high=1,
    better="higher",
    source='Wang et al., "Image Quality Assessment", 2004, doi:10.1109/TIP.2003.819861',
    needs=("reference",),
    sees="noise",
    ignores="mirror",
)
def ssim(clip: Viewing) -> float:
    """Mean over frames of the structural similarity of a frame and that of the reference of the same size.

    Departure: the paper measures grey pictures; as is usual today it is the mean over red, green and blue.
    """
    return float(np.mean([similarity(a, b) for a, b in zip(clip.frames, same_size(clip).frames, strict=True)]))
