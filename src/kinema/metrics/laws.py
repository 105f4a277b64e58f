"""Laws of physics as rules on the path of one object: how far each is broken, and from where on that is too far.

After "VideoPhy" (2024, arXiv:2406.03520), whose raters are people and a language model; these are its kinds of
mistakes as kinema can measure them without either. Each rule takes a path seen by a camera that stands still
(`kinema.metrics.still`), lengths in picture heights, and gives None when the law cannot be seen at work.
"""

from __future__ import annotations

import numpy as np

from kinema.core.optional import library
from kinema.metrics.still import Path

UP = 0.06  # how high above where it stands a thing has to be to be in the air
DIP = 0.015  # how far it comes down between two flights
FLIGHT = 3  # frames in the air, at least
STRAY = 0.06  # of a flight's height, root mean square: as far from a parabola as what hovers is
HOP = 0.03  # how far a hop has to stand out of what is around it
FEWEST = 6  # frames in which the size is seen, at least

# How far each law may be broken: between the clips of kinema.world that keep it and those that were made to break it.
FLOATING = 0.65  # see `floating`
ENERGY = 0.15  # of the height
MOMENTUM = 0.1  # picture heights a frame, a third of what an object does that is put elsewhere
MISSING = 0.05  # of the frames
GROWTH = float(np.log(1.4))


def heights(path: Path) -> np.ndarray:
    """How high the object is above where it is lowest, (T,); gaps are bridged."""
    foot = _bridged(path.foot)
    found: np.ndarray = np.percentile(foot, 95) - foot
    return found


def flights(path: Path) -> list[tuple[int, int]]:
    """First and last frame of every time in the air, cut where the object comes down in between."""
    height = heights(path)
    up = height > UP
    up[library("scipy.signal").find_peaks(_bridged(path.y), prominence=DIP)[0]] = False
    edges = np.flatnonzero(np.diff(np.concatenate([[False], up, [False]]).astype(int)))
    pairs = zip(edges[::2].tolist(), (edges[1::2] - 1).tolist(), strict=True)
    return [(first, last) for first, last in pairs if last - first + 1 >= FLIGHT]


def floating(path: Path) -> float | None:
    """Gravity: how far the worst flight is from a fall, 0 to 1; the larger of two shares.

    The acceleration that is missing: in the air for T frames and as high as h, a thing has to fall by 8 h / T^2 a frame
    and frame (2 h / T^2 where only one half is seen); it does by the median second difference of its height. And how
    far its height strays from the best parabola, as a root mean square over h, where STRAY / FLOATING counts as 1. A
    thing that hovers, or falls at one speed, is near 1, one that falls below 0.5.
    """
    height, y, worst = heights(path), _bridged(path.y), None
    for first, last in flights(path):
        part, top = y[first : last + 1], height[first : last + 1].max()
        needed = (8 if first > 0 and last < len(y) - 1 else 2) * top / (len(part) + 1) ** 2
        missing = 1 - float(np.median(np.diff(part, 2))) / needed
        frames = np.arange(len(part))
        off = part - np.polyval(np.polyfit(frames, part, 2), frames)
        astray = float(np.sqrt(np.mean(off**2))) / (top * STRAY)
        worst = max(missing, astray, worst if worst is not None else 0.0)
    return None if worst is None else min(worst, 1.0)


def energy(path: Path) -> float | None:
    """Energy: the largest height of a hop over that of the hop before, less 1; below 0 where each loses some."""
    height = heights(path)
    tops = height[library("scipy.signal").find_peaks(height, prominence=HOP)[0]]
    return float((tops[1:] / tops[:-1]).max()) - 1 if len(tops) > 1 else None


def momentum(path: Path) -> float | None:
    """Momentum: the largest change of speed to the side from one frame to the next, in picture heights a frame."""
    if path.seen.sum() < 3:
        return None
    change = np.diff(path.x, 2)
    return float(np.abs(change[~np.isnan(change)]).max()) if (~np.isnan(change)).any() else None


def missing(path: Path, at_border: np.ndarray) -> float | None:
    """Permanence: the share of frames in which the object is not seen though it has not left the picture.

    at_border: (T,) bool, whether it touches the border; it leaves there and comes back there.
    """
    seen = path.seen
    if not seen.any():
        return None
    lost, t = 0, 0
    while t < len(seen):
        if seen[t]:
            t += 1
            continue
        end = t
        while end < len(seen) and not seen[end]:
            end += 1
        left = t == 0 or at_border[t - 1]
        came = end == len(seen) or at_border[end]
        lost += 0 if left and came else end - t
        t = end
    return lost / len(seen)


def growth(path: Path, at_border: np.ndarray) -> float | None:
    """Constancy: how much the object grows or shrinks over the clip at its mean rate, |log| of the factor.

    The rate is that of a line through the logarithm of its size, so that a turn that shows another side does not count
    much; frames in which the border may cut it off are left out.
    """
    there = path.seen & ~at_border
    if there.sum() < FEWEST:
        return None
    rate = np.polyfit(np.flatnonzero(there), np.log(path.size[there]), 1)[0]
    return float(abs(rate) * (len(there) - 1))


def _bridged(values: np.ndarray) -> np.ndarray:
    every, there = np.arange(len(values)), ~np.isnan(values)
    found: np.ndarray = np.interp(every, every[there], values[there])
    return found
