"""Gen-L-Video: windows that overlap, averaged in every step, make one clip of many."""

from kinema.claims.bench.claim import Arm, Claim, Comparison
from kinema.claims.long_clips import READERS, in_turn

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
    main=Comparison(measure="seam_score", arm="overlapping", against="end to end"),
    guards=(
        Comparison(measure="share_in_time", arm="overlapping", against="direct", better="higher", slack=0.05),
        Comparison(measure="path", arm="overlapping", against="end to end", better="higher", share=0.3),
        Comparison(measure="sharpness", arm="overlapping", against="end to end", better="higher", share=0.25),
        Comparison(measure="seconds", arm="overlapping", against="direct", share=1.6),
    ),
    request={"num_frames": 97},
    cases=in_turn(2),
    measures=READERS,
    steps=16,
    quick_steps=4,
)
