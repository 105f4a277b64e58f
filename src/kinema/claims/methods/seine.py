"""SEINE: from the end of one shot to the beginning of another, without a cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from kinema.claims.bench.claim import Arm, Case, Claim, Comparison
from kinema.claims.bench.scenes import drawn, one_goes
from kinema.claims.long_clips import READERS, bar
from kinema.metrics.control.psnr import decibels
from kinema.metrics.extractors.extractor import load_extractor
from kinema.metrics.subject import subject
from kinema.video import clip_address
from kinema.world.caption import caption

if TYPE_CHECKING:
    from kinema.backbones.protocol import Backbone
    from kinema.metrics.viewing import Viewing


def ends(count: int, backbone: Backbone) -> list[Case]:
    """Rendered clips of one thing that goes to the side, of which the first and the last frame are given."""
    found = []
    for spec in one_goes(count, ("left", "right")):
        frames = drawn(spec)[0]
        given = {"first": clip_address(frames[:1]), "second": clip_address(frames[-1:])}
        found.append(Case(text=caption(spec, 0), spec=spec, reference=frames, options={"seine": given}))
    return found


def given_end(clip: Viewing, case: Case) -> float:
    """How close the last frame is to the one that was given, dB."""
    assert case.reference is not None
    return float(decibels(torch.from_numpy(clip.frames[-1:]), torch.from_numpy(case.reference[-1:])))


def onwards(clip: Viewing, case: Case) -> float | None:
    """Share of the subject's way to the side that goes towards its end; 1 never turns back."""
    step = np.diff(subject(clip, load_extractor("world")).centre[:, 0])
    step = step[~np.isnan(step)]
    return float(abs(step.sum()) / np.abs(step).sum()) if np.abs(step).sum() > 0 else None


CLAIM = Claim(
    name="seine",
    says="a clip from a given first frame to a given last one, without a cut and without turning back",
    paper="more coherent than earlier methods for transitions; no figure that can be set beside this",
    arms=(
        Arm(name="bar", own=bar(given_end=28.0, onwards=0.85)),
        Arm(name="first frame", techniques=('seine:second=""',)),
        Arm(name="seine", techniques=("seine",)),
    ),
    baseline="first frame",
    method="seine",
    main=Comparison(measure="psnr", arm="seine", against="first frame"),
    guards=(
        Comparison(measure="given_end", arm="seine", against="bar", better="higher"),
        Comparison(measure="onwards", arm="seine", against="bar", better="higher"),
        Comparison(measure="jumps", arm="seine", against="first frame", better="lower", slack=0.1),
        Comparison(measure="t2v_alignment", arm="seine", against="first frame", slack=0.03),
    ),
    cases=ends,
    measures={"given_end": given_end, "onwards": onwards, **READERS},
    steps=16,
    quick_steps=4,
)
