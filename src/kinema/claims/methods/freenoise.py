"""FreeNoise: noise that comes back and windows of attention keep a long clip alike, at little cost."""

from kinema.claims.bench.claim import Arm, Claim, Comparison
from kinema.claims.long_clips import READERS, endless

CLAIM = Claim(
    name="freenoise",
    says="four times the length, and the picture stays what it was",
    paper="17% more time than direct sampling, Gen-L-Video 255%; FVD 85.8, direct 737.6, Gen-L-Video 177.6",
    arms=(
        Arm(name="direct"),
        Arm(name="own noise", techniques=("freenoise:reschedule=false",)),
        Arm(name="freenoise", techniques=("freenoise",)),
        Arm(name="gen_l_video", techniques=("gen_l_video:stride=4",)),
    ),
    baseline="direct",
    method="freenoise",
    main=Comparison(measure="backdrop_drift", arm="freenoise", against="gen_l_video", better="lower"),
    guards=(
        Comparison(measure="backdrop_drift", arm="freenoise", against="own noise", better="lower"),
        Comparison(measure="hue_drift", arm="freenoise", against="gen_l_video", better="lower", slack=2.0),
        Comparison(measure="facts", arm="freenoise", against="direct", better="higher", slack=0.03),
        Comparison(measure="path", arm="freenoise", against="direct", better="higher", share=0.3),
        Comparison(measure="cpu_seconds", arm="freenoise", against="direct", share=0.25),
    ),
    model="mini-unet",
    request={"num_frames": 97},
    cases=endless,
    measures=READERS,
    steps=16,
    quick_steps=4,
    notes={
        "mini-unet": "Times are of the processor, as the machine was shared.",
    },
)
