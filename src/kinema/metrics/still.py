"""Paths of objects as a camera that stands still would have seen them.

What the surroundings of the foot of an object do from one frame to the next is the camera's doing: an affine motion
fitted to the optical flow there, nearer pixels counting more. The object's own motion is what remains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kinema.core.optional import opencv
from kinema.metrics.asked import reading
from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.flow import flow
from kinema.metrics.objects import ObjectTrack, objects
from kinema.metrics.viewing import Viewing

NEAR = 0.25  # of the picture's height: how far from the foot the ground still counts, as a standard deviation
OUTLIER = 0.5  # pixels; flow that is off by this much counts half
HALO = 3  # pixels around an object that belong to neither it nor the ground
ENOUGH = 50  # pixels of ground to fit to


@dataclass(frozen=True, eq=False)
class Path:
    """Where an object is, in picture heights from its first place in the first frame's picture; NaN where not seen."""

    x: np.ndarray  # (T,) to the right
    y: np.ndarray  # (T,) its centre, downwards
    foot: np.ndarray  # (T,) its lowest edge, downwards
    size: np.ndarray  # (T,) square root of its area

    @property
    def seen(self) -> np.ndarray:
        """(T,) bool."""
        found: np.ndarray = ~np.isnan(self.x)
        return found


def still_paths(clip: Viewing, extractor: Extractor) -> list[Path]:
    """Paths of the clip's objects without the camera's motion, the most important first."""

    def find() -> list[Path]:
        tracks = objects(clip, extractor)
        if not tracks:
            return []
        moves = None if len(clip) < 2 or reading(clip, extractor).camera.word == "still" else flow(clip)
        return paths(tracks, moves)

    return clip.once(("still paths", extractor.label), find)


def paths(tracks: Sequence[ObjectTrack], moves: np.ndarray | None) -> list[Path]:
    """Paths of objects by the optical flow (T-1, H, W, 2); None: the camera stands still."""
    height = tracks[0].mask.shape[1]
    if moves is None:
        places = [_places(track) for track in tracks]
    else:
        ground = ~_grown(np.logical_or.reduce([track.mask for track in tracks]))
        places = [_without_camera(_places(track), moves, ground) for track in tracks]
    return [Path(*(place / height).T) for place in places]


def _places(track: ObjectTrack) -> np.ndarray:
    """x, y, foot and size in pixels, (T, 4)."""
    size = np.where(track.seen, np.sqrt(track.area), np.nan)
    return np.column_stack([track.centre, track.boxes[:, 3], size])


def _without_camera(places: np.ndarray, moves: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """The same places with the motion of the ground taken away, frame by frame."""
    found, scale = np.full_like(places, np.nan), 1.0
    seen = np.flatnonzero(~np.isnan(places[:, 0]))
    if not len(seen):
        return found
    here = places[seen[0], :3].copy()  # x, y and foot, without the camera's motion
    ghost = here.copy()  # where it would be now if only the camera had moved since it was last seen
    stand = here[2]  # the lowest that its foot has been, moved along with the camera: the ground below it
    for t in range(int(seen[0]), len(places)):
        if not np.isnan(places[t, 0]):
            here = here + (places[t, :3] - ghost) / scale
            found[t] = [*here, places[t, 3] / scale]
            ghost = places[t, :3].copy()
        stand = max(stand, ghost[2])
        if t + 1 < len(places):
            shift, grown = camera_at(moves[t], ground[t] & ground[t + 1], ghost[0], stand)
            # What is above that ground is as far away: heights grow as widths do.
            ghost[0] += shift[0]
            ghost[1:] += shift[1] + (grown - 1) * (ghost[1:] - stand)
            stand, scale = stand + shift[1], scale * grown
    return found


def camera_at(moves: np.ndarray, ground: np.ndarray, x: float, y: float) -> tuple[np.ndarray, float]:
    """What the camera does to a point (x, y) of the ground: shift (2,) in pixels, and how its surroundings grow.

    Weighted least squares of an affine motion, three rounds in which outliers count less and less. The growth is that
    of widths: heights on the ground change with the angle of view, too. Nothing when there is too little ground.
    """
    rows, columns = np.nonzero(ground)
    if len(rows) < ENOUGH:
        return np.zeros(2), 1.0
    dx, dy = columns + 0.5 - x, rows + 0.5 - y
    seen = moves[rows, columns].astype(np.float64)
    weight = np.exp(-(dx**2 + dy**2) / (2 * (NEAR * len(ground)) ** 2)) + 1e-9
    terms = np.stack([np.ones(len(dx)), dx, dy], -1)
    for _ in range(3):
        weighted = terms * weight[:, None]
        fit = np.linalg.lstsq(weighted.T @ terms, weighted.T @ seen, rcond=None)[0]  # (3, 2)
        weight = weight / (1 + (np.abs(seen - terms @ fit).sum(-1) / OUTLIER) ** 2)
    return fit[0], float(np.clip(1 + fit[1, 0], 0.5, 2.0))


def _grown(mask: np.ndarray) -> np.ndarray:
    """(T, H, W) bool with HALO pixels more on every side."""
    cv2 = opencv()
    kernel = np.ones((2 * HALO + 1, 2 * HALO + 1), np.uint8)
    return np.stack([cv2.dilate(frame.astype(np.uint8), kernel) for frame in mask]) > 0
