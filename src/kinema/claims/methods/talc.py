"""TALC: frames that read their own event's text show it in its time."""

from kinema.claims.bench.claim import Arm, Claim, Comparison
from kinema.claims.long_clips import READERS, in_turn

CLAIM = Claim(
    name="talc",
    says="three events land in their own thirds of a clip, and the picture stays what it was",
    paper="15.5 points more, people on consistency and text together, than with one text or clips put together; tuned",
    arms=(
        Arm(name="one text"),
        Arm(name="clip by clip", techniques=("mtvg:anchor=0.0,structure=0.0,decay=1000000.0",)),
        Arm(name="talc", techniques=("talc",)),
    ),
    baseline="one text",
    method="talc",
    main=Comparison(measure="share_in_time", arm="talc", against="one text", better="higher"),
    guards=(
        Comparison(measure="backdrop_drift", arm="talc", against="clip by clip", better="lower", share=-0.5),
        Comparison(measure="jumps", arm="talc", against="one text", better="lower", slack=0.5),
        Comparison(measure="facts", arm="talc", against="one text", better="higher", slack=0.05),
    ),
    request={"num_frames": 73},
    cases=in_turn(3),
    measures=READERS,
    steps=16,
    quick_steps=4,
)
