"""VBench, temporal flickering: how alike neighbouring frames are."""

from __future__ import annotations

from kinema.metrics.metric import metric
from kinema.metrics.temporal.flicker import flicker
from kinema.metrics.viewing import Viewing


@metric(
    "vbench_temporal_flickering",
    unit="share of the range",
    low=0,
    high=1,
    better="higher",
    source='"VBench", 2023, arXiv:2311.17982',
    sees="flicker",
    ignores="mirror",
)
def temporal_flickering(clip: Viewing) -> float | None:
    """How little the picture changes from frame to frame; 1 for a still picture, and motion counts as flicker.

    (255 - mean |I_t+1 - I_t|) / 255; None for a single frame. VBench asks it only of prompts for a still scene, and
    only of those clips that its static filter lets through, since motion counts as flicker; choosing such clips is left
    to the caller.
    """
    change = flicker(clip)
    return None if change is None else (255 - change) / 255
