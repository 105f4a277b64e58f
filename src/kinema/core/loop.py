"""The one denoising loop of kinema."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kinema.core.run import Run
from kinema.core.technique import Step, Technique

if TYPE_CHECKING:
    from kinema.backbones.protocol import Backbone, Conditions
    from kinema.request import Request


def sample(
    backbone: Backbone,
    request: Request | Sequence[Request],
    techniques: Sequence[Technique] = (),
    on_step: Callable[[Step, Tensor], None] | None = None,
) -> Tensor:
    """Makes one video for each request; several requests are one batch and must agree in size and steps.

    Returns frames (B, T, H, W, 3) uint8. `on_step` is called after each step with the step and its latents; what it
    raises ends the run. Raises KinemaError, before the first step, for anything that cannot be honoured.
    """
    from kinema.core.rollout import Rollout  # which calls the loop below

    return torch.cat(list(Rollout(backbone, request, techniques, on_step).frames()), dim=1)


def denoise(
    backbone: Backbone,
    request: Request | Sequence[Request],
    techniques: Sequence[Technique] = (),
    on_step: Callable[[Step, Tensor], None] | None = None,
) -> tuple[Tensor, Conditions]:
    """One pass alone: clean latents (B, C, T, H, W), and what they were made under, for `decode`."""
    with torch.no_grad(), Run.open(backbone, request, techniques) as run:  # every check that can fail fails here
        return loop(run, on_step), run.conditions


@torch.no_grad()
def loop(run: Run, on_step: Callable[[Step, Tensor], None] | None = None) -> Tensor:
    """From noise to the clean latents (B, C, T, H, W) of a run."""
    x = run.hold(run.solver.begin(run.chain("init_noise", run.noise())))
    for step in run.schedule:  # t = 1 (noise) -> 0 (data)
        x = run.chain("before_step", x, step)
        v = run.guided(step, x)  # branches, guidance, edits of the clean estimate
        x = run.hold(run.solver.advance(x, v, step))
        x = run.chain("after_step", x, step)
        if on_step is not None:
            on_step(step, x)
    return run.chain("finish", run.hold(x))
