"""Structural similarity: how alike the patterns of a clip and its reference are, place by place."""

from __future__ import annotations

import numpy as np

from kinema.core.optional import opencv
from kinema.metrics.metric import metric
from kinema.metrics.viewing import Viewing, same_size

WINDOW, SIGMA = 11, 1.5  # pixels, side and width of the Gaussian window; smaller pictures are continued by their edge
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def similarity(a: np.ndarray, b: np.ndarray) -> float:
    """SSIM of two pictures (H, W, 3) uint8, -1..1: (2 m_a m_b + C1) (2 s_ab + C2) / ((m_a^2 + m_b^2 + C1) (s_a^2 +
    s_b^2 + C2)) with means m, variances s^2 and the covariance s_ab under the window; mean over places whose window is
    inside the picture, and over the three colours. The same numbers as skimage's, in half the time.
    """
    cv2, border = opencv(), WINDOW // 2
    lacking = [(0, max(0, WINDOW - n)) for n in a.shape[:2]]
    x, y = (np.pad(each, (*lacking, (0, 0)), mode="edge").astype(np.float64) for each in (a, b))

    def mean(values: np.ndarray) -> np.ndarray:
        blurred: np.ndarray = cv2.GaussianBlur(values, (WINDOW, WINDOW), SIGMA)
        return blurred[border:-border, border:-border]

    m_a, m_b = mean(x), mean(y)
    s_aa, s_bb, s_ab = mean(x * x) - m_a**2, mean(y * y) - m_b**2, mean(x * y) - m_a * m_b
    ratio = (2 * m_a * m_b + C1) * (2 * s_ab + C2) / ((m_a**2 + m_b**2 + C1) * (s_aa + s_bb + C2))
    return float(ratio.mean())


@metric(
    "ssim",
    unit="similarity",
    low=-1,
    high=1,
    better="higher",
    source='Wang et al., "Image Quality Assessment", 2004, doi:10.1109/TIP.2003.819861',
    needs=("reference",),
    sees="noise",
    ignores="mirror",
)
def ssim(clip: Viewing) -> float:
    """How alike the frames and those of the reference are in light, contrast and structure; 1 when equal.

    Mean over frames of the structural similarity of a frame and that of the reference of the same size. Departure: the
    paper measures grey pictures; as is usual today it is the mean over red, green and blue.
    """
    return float(np.mean([similarity(a, b) for a, b in zip(clip.frames, same_size(clip).frames, strict=True)]))
