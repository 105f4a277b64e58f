"""Video-MSG: a clip that starts from a rough sketch has its things where the sketch has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kinema.claims.bench.claim import Arm, Case, Claim, Comparison
from kinema.claims.bench.scenes import drawn, flat, one_goes
from kinema.claims.methods.ditflow import same_way
from kinema.metrics.staging import unchanged
from kinema.metrics.viewing import Viewing
from kinema.video import clip_address
from kinema.world.caption import caption

WITHIN = 2  # grey levels


def sketched(count: int, backbone: Any) -> Sequence[Case]:
    """Scenes of one thing that goes somewhere, with their own prompts, and a sketch that the renderer draws flat."""
    return [
        Case(
            text=caption(spec, spec.seed),
            reference=drawn(spec)[0],
            spec=spec,
            options={"video_msg": {"sketch": clip_address(flat(spec))}},
        )
        for spec in one_goes(count)
    ]


def still_sketch(clip: Viewing, case: Case) -> float | None:
    """Share of the pixels that are still the sketch."""
    assert case.spec is not None
    return unchanged(clip.frames, flat(case.spec), WITHIN)


CLAIM = Claim(
    name="video_msg",
    says="things are where the sketch has them, in a picture that is not the sketch",
    paper="motion binding of T2V-CompBench 0.449 from 0.294, spatial 0.607 from 0.546 with CogVideoX-5B",
    arms=(
        Arm(name="plain"),
        Arm(name="sketch", techniques=("video_msg:level=0.8",)),
        Arm(name="sketch to 0.95", techniques=("video_msg:level=0.95",)),
        Arm(name="sketch to 0.9", techniques=("video_msg:level=0.9",)),
        Arm(name="sketch to 0.6", techniques=("video_msg:level=0.6",)),
    ),
    baseline="plain",
    method="sketch",
    main=Comparison(measure="layout_iou", arm="sketch", against="plain"),
    guards=(
        Comparison(measure="layout_iou", arm="sketch", against="plain", share=-1.0),  # twice
        Comparison(measure="path cosine", arm="sketch", against="plain", better="higher"),
        Comparison(measure="t2v_alignment", arm="sketch", against="plain", slack=0.05),
        Comparison(measure="still sketch", arm="sketch", against="plain", better="lower", slack=0.05),
    ),
    cases=sketched,
    measures={"path cosine": same_way, "still sketch": still_sketch},
    steps=20,
)
