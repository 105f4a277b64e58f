"""VidRD: chunks that replay the last one's noise and first steps go on where it ended."""

from kinema.claims.bench.claim import Arm, Claim, Comparison
from kinema.claims.long_clips import READERS, endless

CLAIM = Claim(
    name="vidrd",
    says="chunks that begin as the last one did, mirrored, fit it",
    paper="no figure at hand for the extension alone; smooth to the eye",
    arms=(
        Arm(name="new noise", techniques=("vidrd:reuse=0.0,guided=0.0,tied=1",)),
        Arm(name="noise alone", techniques=("vidrd:guided=0.0",)),
        Arm(name="vidrd", techniques=("vidrd",)),
    ),
    baseline="new noise",
    method="vidrd",
    main=Comparison(measure="seam_score", arm="vidrd", against="new noise"),
    guards=(
        Comparison(measure="backdrop_drift", arm="vidrd", against="new noise", better="lower"),
        Comparison(measure="hue_drift", arm="vidrd", against="new noise", better="lower", share=-0.5),
        Comparison(measure="path", arm="vidrd", against="new noise", better="higher", share=0.3),
        Comparison(measure="facts", arm="vidrd", against="new noise", better="higher", slack=0.03),
    ),
    request={"num_frames": 85},  # four chunks
    cases=endless,
    measures=READERS,
    steps=16,
    quick_steps=4,
    notes={
        "mini": "The seam and the drift of the backdrop fall; the drift of the thing's hue hardly does, where half "
        "was asked for, as all chunks read the same text and this model keeps its colour by that alone.",
    },
)
