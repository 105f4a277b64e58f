"""Motion fidelity: whether things move as they do in the reference, whatever they look like."""

from __future__ import annotations

import numpy as np

from kinema.metrics.metric import metric
from kinema.metrics.point_tracks import point_tracks
from kinema.metrics.viewing import Viewing, same_length

STILL = 0.005  # of the shorter side a frame: what moves much less counts as standing still
SPAN = 24  # steps between frames that are compared at a time, the length of the paper's clips
SEEN = 0.75  # of the steps, at least, that a point has to be seen for


def best_cosine(a: np.ndarray, b: np.ndarray) -> float | None:
    """Mean over the tracks of each of two clips of the best agreement with any track of the other, -1..1.

    Args:
        a: steps (P, T, 2) of tracks from frame to frame, in units of what counts as standing still; NaN where unseen.
        b: those of the other clip, (Q, T, 2).

    Two tracks agree by the mean over the steps seen of both of the cosine between (x, y, 1) and (x, y, 1). None where
    a clip has no track that is seen for `SEEN` of the steps.
    """
    sides, seen = [], []
    for steps in (a, b):
        known = ~np.isnan(steps[..., 0])
        lasting = known.mean(1) >= SEEN if steps.shape[1] else np.zeros(len(steps), bool)
        if not lasting.any():
            return None
        known, steps = known[lasting], np.nan_to_num(steps[lasting].astype(np.float64))
        rays = np.concatenate([steps, np.ones((*steps.shape[:2], 1))], -1)
        rays *= (known / np.linalg.norm(rays, axis=-1))[..., None]
        sides.append(rays.reshape(len(rays), -1))
        seen.append(known.astype(np.float64))
    agreement = (sides[0] @ sides[1].T) / (seen[0] @ seen[1].T)  # two that last share half of the steps at least
    return float(np.clip((agreement.max(1).mean() + agreement.max(0).mean()) / 2, -1, 1))


@metric(
    "motion_fidelity",
    unit="cosine",
    low=-1,
    high=1,
    better="higher",
    source='"Space-Time Diffusion Features for Zero-Shot Text-Driven Motion Transfer", 2023, arXiv:2311.17009',
    needs=("reference",),
    sees="freeze",
    ignores="darker",
)
def motion_fidelity(clip: Viewing) -> float | None:
    """How well each point's motion finds its like in the reference, and the other way round; 1 for the same motion.

    Tracks are compared by the mean cosine of their steps from frame to frame, wherever in the picture they are; each
    takes its best match of the other clip; mean over tracks and both directions. Clips may differ in size, not in
    length; steps are in shares of the shorter side. None where nothing can be followed.
    Departures: the paper has no way with points that stand still, whose direction is noise: here every step gets a
    third part of `STILL`, so that standing still agrees with standing still, and with a fast motion not at all. The
    paper follows a grid by CoTracker, here corners are followed by `point_tracks`; long clips are taken in pieces of
    24 steps. Its code has one direction only, its text both.
    Raises: KinemaError when the lengths differ.
    """
    reference = same_length(clip)
    steps = [np.diff(point_tracks(v)[0], axis=1) / (STILL * min(v.height, v.width)) for v in (clip, reference)]
    pieces = [best_cosine(*(s[:, i : i + SPAN] for s in steps)) for i in range(0, len(clip) - 1, SPAN)]
    found = [piece for piece in pieces if piece is not None]
    return float(np.mean(found)) if found else None
