"""LivePhoto: a number says how much a photo moves."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kinema.claims.bench.claim import Arm, Case, Claim, Comparison, Numbers
from kinema.claims.bench.scenes import FIRST_SEED, drawn
from kinema.claims.long_clips import bar
from kinema.core.optional import library
from kinema.layers.pace import pace
from kinema.metrics.control.first_frame import first_frame_psnr
from kinema.metrics.viewing import Viewing
from kinema.pipeline import run_request
from kinema.request import Part, Request
from kinema.video import clip_address
from kinema.world.caption import caption
from kinema.world.sample import sample_spec

if TYPE_CHECKING:
    from kinema.backbones.protocol import Backbone

ASKED = (0, 2, 4, 6, 8, 10)  # intensities
# What grows or shrinks is slow at its most: for half of the intensities there is no such clip.
ACTIONS = ("roll", "slide", "bounce", "jump")
APART = 0.5  # seconds between the frames whose motion counts: what flickers from frame to frame goes nowhere


def photos(count: int, backbone: Backbone) -> Sequence[Case]:
    """First frames of rendered clips of held-out combinations, and what is to happen; how far it goes is not said."""
    cases = []
    for seed in itertools.count(FIRST_SEED):
        spec = sample_spec(seed, "paces", "held_out")
        seen = (spec.objects[0].colour, spec.ground) != ("white", "snow")
        if not spec.events or spec.events[0].action not in ACTIONS or not seen:
            continue
        clip = drawn(spec)[0]
        photo = {"image": clip_address(clip[:1])}
        cases.append(Case(text=caption(spec, seed), request=photo, reference=clip, spec=spec))
        if len(cases) == count:
            return cases
    raise AssertionError


def motion_of(frames: np.ndarray, fps: float) -> float:
    """How fast what moves in a clip moves, picture heights per second."""
    step = max(1, round(APART * fps))
    return pace(frames[::step], fps / step)


def all_asked(backbone: Backbone, case: Case, seed: int, steps: int | None) -> Numbers:
    """A clip of each intensity from the same photo, prompt and noise, and whether their motion is in this order."""
    motion: list[float] = []
    decibels: list[float] = []
    for level in ASKED:
        told: dict[str, Any] = dict(prompt=case.text, seed=seed, num_inference_steps=steps, model=backbone.name)
        technique = Part(name="livephoto", options={"intensity": level})
        video = run_request(Request(**told, **case.request, techniques=(technique,)), None, backbone)
        assert case.reference is not None
        clip = Viewing(video.frames, video.fps, reference=Viewing(case.reference, video.fps))
        motion.append(motion_of(video.frames, video.fps))
        decibels.append(first_frame_psnr(clip) or 0.0)
    order = library("scipy.stats").spearmanr(ASKED, motion).statistic if np.ptp(motion) else 0.0
    each = {f"motion at {level}": value for level, value in zip(ASKED, motion, strict=True)}
    return {"order": float(order), "photo_psnr": float(np.mean(decibels)), **each}


CLAIM = Claim(
    name="livephoto",
    says="more moves the more is asked for, from the same photo, prompt and noise",
    paper="users can choose how strongly a photo moves, and text says how; no figure",
    arms=(
        Arm(name="what it has to reach", own=bar(order=0.8, photo_psnr=28.0)),
        Arm(name="0 to 10", own=all_asked),
        Arm(name="plain"),
        Arm(name="6", techniques=("livephoto:intensity=6",)),
    ),
    baseline="plain",
    method="6",
    main=Comparison(measure="order", arm="0 to 10", against="what it has to reach", better="higher"),
    guards=(
        Comparison(measure="photo_psnr", arm="0 to 10", against="what it has to reach", better="higher"),
        Comparison(measure="t2v_alignment", arm="6", against="plain", slack=0.02),
        Comparison(measure="motion_smoothness", arm="6", against="plain", slack=0.02),
    ),
    cases=photos,
    means={
        "order": "Rank correlation of six intensities, 0 to 10, with how fast their clips move, -1..1.",
        "photo_psnr": "Of the first frame to the photo, decibels.",
    },
    steps=20,
)
