"""FreeLong: the coarse of attention to all frames and the fine of attention to near ones."""

from kinema.claims.bench.claim import Arm, Claim, Comparison
from kinema.claims.long_clips import READERS, endless

CLAIM = Claim(
    name="freelong",
    says="four times the length, as alike as with attention to all frames and as sharp as with near ones",
    paper="subject consistency 95.16, direct 88.95, FreeNoise 92.30; imaging 67.55, direct 64.76",
    arms=(
        Arm(name="direct"),
        Arm(name="windows", techniques=("freenoise:reschedule=false",)),
        Arm(name="freenoise", techniques=("freenoise",)),
        Arm(name="freelong", techniques=("freelong",)),
    ),
    baseline="direct",
    method="freelong",
    main=Comparison(measure="backdrop_drift", arm="freelong", against="windows", better="lower"),
    guards=(
        Comparison(measure="hue_drift", arm="freelong", against="windows", better="lower", slack=2.0),
        Comparison(measure="sharpness", arm="freelong", against="direct", better="higher", share=0.05),
        Comparison(measure="facts", arm="freelong", against="direct", better="higher", slack=0.03),
        Comparison(measure="path", arm="freelong", against="direct", better="higher", share=0.3),
    ),
    model="mini-unet",
    request={"num_frames": 97},
    cases=endless,
    measures=READERS,
    steps=16,
    quick_steps=4,
)
