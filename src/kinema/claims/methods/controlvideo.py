"""ControlVideo: an edit whose frames flicker less, with things where they were."""

from kinema.claims.bench.claim import Arm, Claim, Comparison
from kinema.claims.edits import edited

CLAIM = Claim(
    name="controlvideo",
    says="edited clips flicker less, and keep the structure of their source",
    paper="frames more alike than by Tune-A-Video and Text2Video-Zero on 125 clips; no figure at hand for the smoother",
    arms=(
        Arm(name="gen1", techniques=("gen1",)),
        Arm(name="controlvideo", techniques=("controlvideo", "gen1")),
        Arm(name="key frames", techniques=("controlvideo:smooth=[],hierarchical=true,own=false", "gen1")),
    ),
    baseline="gen1",
    method="controlvideo",
    main=Comparison(measure="flicker", arm="controlvideo", against="gen1"),
    guards=(
        Comparison(measure="flicker", arm="controlvideo", against="gen1", share=-0.2),
        Comparison(measure="mask_iou", arm="controlvideo", against="gen1", slack=0.02),
    ),
    parts=(
        Comparison(measure="warping_error", arm="controlvideo", against="gen1"),
        Comparison(measure="sharpness", arm="controlvideo", against="gen1", better="higher"),
        Comparison(measure="dynamic_degree", arm="controlvideo", against="gen1", better="higher"),
        *(Comparison(measure=measure, arm="key frames", against="gen1") for measure in ("flicker", "mask_iou")),
    ),
    cases=edited,
    steps=20,
)
