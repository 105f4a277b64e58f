"""Camera-motion residual: the motion that no single move of the camera explains."""

from __future__ import annotations

import numpy as np

from kinema.core.optional import opencv
from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.flow import flow, occlusion
from kinema.metrics.metric import metric
from kinema.metrics.viewing import Viewing

POINTS = 48  # along the longer side, most that the fit looks at
LOOSE = 0.005  # of the shorter side, and at least half a pixel: how far a point may be off and still belong to the fit


def camera_flow(moves: np.ndarray, seen: np.ndarray) -> np.ndarray | None:
    """(H, W, 2) pixels: the flow of the homography that most of the flow follows; None when none is found.

    moves: (H, W, 2) pixels. seen: (H, W) bool, what the fit may look at. RANSAC of OpenCV, which draws the same
    samples each time.
    """
    cv2 = opencv()
    height, width = moves.shape[:2]
    rows, columns = np.indices((height, width), np.float32)
    every = -(-max(height, width) // POINTS)
    points = np.stack([columns, rows], -1)
    some = seen[::every, ::every]
    start, goal = points[::every, ::every][some], (points + moves)[::every, ::every][some]
    if len(start) < 4:
        return None
    matrix, _ = cv2.findHomography(start, goal, cv2.RANSAC, max(0.5, LOOSE * min(height, width)))
    if matrix is None:
        return None
    goal = cv2.perspectiveTransform(points.reshape(1, -1, 2).astype(np.float64), matrix).reshape(height, width, 2)
    found: np.ndarray = goal - points
    return found if np.isfinite(found).all() else None


def residual(moves: np.ndarray, seen: np.ndarray) -> float:
    """Sum over the pixels seen (H, W) of the length of `moves` (H, W, 2) less the camera's; pixels.

    The camera is taken to be at rest where that leaves less.
    """
    still = float(np.linalg.norm(moves, axis=-1)[seen].sum(dtype=np.float64))
    camera = camera_flow(moves, seen) if still else None
    if camera is None:
        return still
    return min(still, float(np.linalg.norm(moves - camera, axis=-1)[seen].sum(dtype=np.float64)))


@metric(
    "camera_motion_residual",
    unit="shorter sides per second",
    low=0,
    high=float("inf"),
    better=None,
    source='kinema\'s own; homography by "Random Sample Consensus", Fischler and Bolles, 1981',
    extractor="dis",
    sees="wobble",
    ignores="mirror",
)
def camera_motion_residual(clip: Viewing, extractor: Extractor) -> float | None:
    """How much motion is not the camera's: how fast the picture moves besides turning, zooming and sliding as one.

    Mean length of what is left of the flow after the best homography, over all pixels that are not hidden. 0 when all
    motion is the camera's: turning, zooming, or passing a flat scene. Objects that move, depth seen by a camera that
    travels, and a picture that melts leave something. A homography that leaves more than a camera at rest would is not
    used. None for a single frame, or when the flow explains nothing.
    """
    seen = ~occlusion(clip, extractor)
    count = seen.sum()  # a pair with a cut between has few, and counts as little
    left = sum(residual(*pair) for pair in zip(flow(clip, extractor), seen, strict=True))
    return float(left / count) * clip.fps / min(clip.height, clip.width) if count else None
