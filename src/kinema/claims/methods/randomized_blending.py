"""StreamingT2V: windows that meet at another frame in every step, beside their mean; and a memory against drift."""

from kinema.claims.bench.claim import Arm, Claim, Comparison
from kinema.claims.long_clips import READERS, endless

CLAIM = Claim(
    name="randomized_blending",
    says="windows that meet at random leave less of a seam than their mean, as sharp; a memory stops drift",
    paper="1200 frames; 240 frames: MAWE 52.3, FreeNoise 1298; with a trained memory",
    arms=(
        Arm(name="mean", techniques=("gen_l_video:stride=5",)),
        Arm(name="at random", techniques=("randomized_blending:overlap=2",)),
        Arm(name="with memory", techniques=("randomized_blending:overlap=2", "anchor_memory")),
    ),
    baseline="mean",
    method="at random",
    main=Comparison(measure="seam_score", arm="at random", against="mean"),
    guards=(
        Comparison(measure="sharpness", arm="at random", against="mean", better="higher", share=0.05),
        Comparison(measure="path", arm="at random", against="mean", better="higher", share=0.2),
    ),
    parts=(
        Comparison(measure="backdrop_drift", arm="with memory", against="at random", better="lower", share=-0.5),
        Comparison(measure="path", arm="with memory", against="at random", better="higher", share=0.2),
    ),
    request={"num_frames": 97},
    cases=endless,
    measures=READERS,
    steps=16,
    quick_steps=4,
    notes={
        "mini": "Windows are 7 latent frames with 2 shared, where the paper shares 8 of 24: the cut has three "
        "places to be in, and the mean of two velocities is already smooth and as sharp. The memory stops less than "
        "a fifth of the drift; the paper's was trained.",
    },
)
