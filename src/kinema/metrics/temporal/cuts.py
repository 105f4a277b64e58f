"""Cuts: how often a clip jumps to another picture."""

from __future__ import annotations

from kinema.metrics.metric import metric
from kinema.metrics.shots import shots
from kinema.metrics.viewing import Viewing


@metric(
    "cuts",
    unit="cuts",
    low=0,
    high=float("inf"),
    better=None,
    source="PySceneDetect's content detector, threshold 27",
    sees="spliced",
    ignores="drift",
)
def cuts(clip: Viewing) -> float:
    """Number of hard cuts: neighbouring frames that are very unlike; a fast camera can look like one.

    Pairs of frames whose hue, saturation and value differ by more than 27 of 255 in the mean. Fades are not counted,
    and a flash of one frame is two cuts.
    """
    return float(len(shots(clip)) - 1)
