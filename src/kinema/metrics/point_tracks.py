"""Where points of a clip go: corners followed from frame to frame, without a network."""

from __future__ import annotations

import numpy as np

from kinema.core.optional import opencv
from kinema.metrics.viewing import Viewing

MOST = 192  # points followed at a time
BACK = 0.5  # pixels that a point may miss its place by when it is followed back by one frame
LOOK = 1 / 9  # side of the window that is compared, as a share of the shorter side
APART = 1 / 36  # least distance of two new points, as a share of the shorter side
QUALITY = 1e-4  # of the best corner's strength, at least: the ground is faint beside the objects that stand on it


def point_tracks(clip: Viewing) -> tuple[np.ndarray, np.ndarray]:
    """Points (Q, T, 2) float32 in pixels, x right and y down, NaN where not seen; seen (Q, T) bool. Q may be 0.

    Corners (Shi and Tomasi, 1994) are followed by pyramidal Lucas-Kanade (Bouguet, 2001) from one frame to the next;
    one that does not come back to its place when it is followed backwards (Kalal et al., 2010), or that leaves the
    picture, is lost for good. New corners are taken up in every frame where no other point is near. Pixel centres are
    at half integers, as everywhere in kinema. Computed once a clip. Memory grows with the square of the length.
    """
    return clip.once("point_tracks", lambda: _tracked(clip))


def _tracked(clip: Viewing) -> tuple[np.ndarray, np.ndarray]:
    cv2 = opencv()
    side = min(clip.height, clip.width)
    window = max(5, round(LOOK * side) | 1)
    how = {"winSize": (window, window), "maxLevel": 3, "criteria": (3, 20, 0.02), "minEigThreshold": 1e-5}
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip.frames]
    paths: list[list[np.ndarray]] = []  # of each point the places from `since` on
    since: list[int] = []
    alive = np.zeros(0, int)
    now = np.zeros((0, 2), np.float32)
    for t, picture in enumerate(grey):
        if t and len(alive):
            then, found, _ = cv2.calcOpticalFlowPyrLK(grey[t - 1], picture, now[:, None], None, **how)
            back, again, _ = cv2.calcOpticalFlowPyrLK(picture, grey[t - 1], then, None, **how)
            miss = np.linalg.norm(back[:, 0] - now, axis=1)
            then = then[:, 0]
            inside = ((then >= -0.5) & (then <= np.array([clip.width, clip.height]) - 0.5)).all(1)
            good = (found[:, 0] == 1) & (again[:, 0] == 1) & (miss <= BACK) & inside
            alive, now = alive[good], then[good]
            for q, place in zip(alive, now, strict=True):
                paths[q].append(place)
        if t < len(grey) - 1 or t == 0:
            new = _corners(picture, now, max(2.0, APART * side))
            alive = np.concatenate([alive, np.arange(len(paths), len(paths) + len(new))])
            now = np.concatenate([now, new])
            paths += [[place] for place in new]
            since += [t] * len(new)
    points = np.full((len(paths), len(clip), 2), np.nan, np.float32)
    for q, (start, path) in enumerate(zip(since, paths, strict=True)):
        points[q, start : start + len(path)] = np.asarray(path) + 0.5
    return points, ~np.isnan(points[..., 0])


def _corners(picture: np.ndarray, taken: np.ndarray, apart: float) -> np.ndarray:
    """New corners (N, 2) of a grey picture, none nearer than `apart` pixels to a point that is followed already."""
    cv2 = opencv()
    free = np.full(picture.shape, 255, np.uint8)
    for x, y in np.rint(taken).astype(int):
        cv2.circle(free, (int(x), int(y)), int(np.ceil(apart)), 0, -1)
    room = MOST - len(taken)
    if room <= 0 or not free.any():
        return np.zeros((0, 2), np.float32)
    found = cv2.goodFeaturesToTrack(picture, room, QUALITY, apart, mask=free, blockSize=3)
    return np.zeros((0, 2), np.float32) if found is None else found[:, 0]
