"""Four events in 200 frames: chunks that go on from each other, whose frames read the text of their own event."""

from kinema.claims.bench.claim import Arm, Claim, Comparison
from kinema.claims.long_clips import READERS, bar, in_turn

CLAIM = Claim(
    name="continuation",
    says="four events in 200 frames, all read in order in at least half of the clips",
    paper="SEINE rolls on for minutes; no figure for events",
    arms=(
        Arm(name="half of them", own=bar(all_in_time=0.5)),
        Arm(name="direct"),
        Arm(name="continuation and talc", techniques=("continuation", "talc")),
    ),
    baseline="direct",
    method="continuation and talc",
    main=Comparison(measure="all_in_time", arm="continuation and talc", against="direct", better="higher"),
    guards=(
        Comparison(measure="all_in_time", arm="continuation and talc", against="half of them", better="higher"),
        Comparison(measure="share_in_time", arm="continuation and talc", against="direct", better="higher"),
        Comparison(measure="facts", arm="continuation and talc", against="direct", better="higher", slack=0.1),
    ),
    request={"num_frames": 201},
    cases=in_turn(4),
    measures=READERS,
    steps=12,
    quick_steps=4,
)
