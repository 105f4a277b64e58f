"""Gen-L-Video: windows that overlap, averaged in every step, make one clip of many."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kinema.claims.bench.claim import Arm, Case, Claim, Comparison
from kinema.claims.long_clips import READERS, in_turn
from kinema.metrics.temporal.seam_score import jumps, seam

if TYPE_CHECKING:
    from kinema.metrics.viewing import Viewing

BORDERS = (25, 53, 81)  # frames that windows of 7 latent frames begin with, where they lie end to end


def at_borders(clip: Viewing, case: Case) -> float:
    """The change from frame to frame where windows would meet, in times of the median elsewhere."""
    return seam(jumps(clip.frames), BORDERS)


CLAIM = Claim(
    name="gen_l_video",
    says="windows that share half of their frames leave no seam, and each shows its own text",
    paper="hundreds of frames with several texts; no seam is told in numbers",
    arms=(
        Arm(name="direct"),
        Arm(name="end to end", techniques=("gen_l_video:stride=7",)),
        Arm(name="overlapping", techniques=("gen_l_video:stride=4",)),
    ),
    baseline="direct",
    method="overlapping",
    main=Comparison(measure="at_borders", arm="overlapping", against="end to end", better="lower"),
    guards=(
        Comparison(measure="share_in_time", arm="overlapping", against="direct", better="higher", slack=0.05),
        Comparison(measure="path", arm="overlapping", against="end to end", better="higher", share=0.3),
        Comparison(measure="sharpness", arm="overlapping", against="end to end", better="higher", share=0.25),
        Comparison(measure="cpu_seconds", arm="overlapping", against="direct", share=1.6),
    ),
    model="mini-unet",
    request={"num_frames": 109},
    cases=in_turn(2),
    measures={"at_borders": at_borders, **READERS},
    steps=16,
    quick_steps=4,
    notes={
        "mini-unet": "Seven windows of up to 8 of 28 latent frames are twice the frames of one pass; the rest of "
        "the time is that of calls, which cost a small network as much for few frames as for many. On mini the same "
        "windows take 2.3 times the time of direct sampling.",
    },
)
