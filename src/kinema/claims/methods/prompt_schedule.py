"""Motion injection: texts that hand over along the clip, read by some blocks only early and late."""

from kinema.claims.bench.claim import Arm, Claim, Comparison
from kinema.claims.long_clips import READERS, in_turn

CLAIM = Claim(
    name="prompt_schedule",
    says="two motions in one long clip, and the picture stays what it was",
    paper="two prompts in one clip, shown in pictures; no figure",
    arms=(
        Arm(name="one text", techniques=("freenoise",)),
        Arm(name="all blocks", techniques=("prompt_schedule:mixed_range=[1.0,0.0]", "freenoise")),
        Arm(name="prompt_schedule", techniques=("prompt_schedule", "freenoise")),
    ),
    baseline="one text",
    method="prompt_schedule",
    main=Comparison(measure="share_in_time", arm="prompt_schedule", against="one text", better="higher"),
    guards=(
        Comparison(measure="backdrop_drift", arm="prompt_schedule", against="all blocks", better="lower", share=0.05),
        Comparison(measure="jumps", arm="prompt_schedule", against="one text", better="lower", slack=0.5),
        Comparison(measure="facts", arm="prompt_schedule", against="one text", better="higher", slack=0.05),
    ),
    request={"num_frames": 97},
    cases=in_turn(2),
    measures=READERS,
    steps=16,
    quick_steps=4,
    notes={
        "mini": "The picture stays what it was, more so than with texts that change in all blocks and steps. But "
        "the events are lost with what is left out: texts in all blocks show 0.84 of them, the schedule 0.45. On "
        "mini, whose text comes from cross-attention in six blocks, what happens is decided where the schedule has "
        "all frames read one text.",
    },
)
