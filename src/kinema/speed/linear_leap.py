"""Stop asking the model as soon as its velocity no longer turns, and go the rest of the way in a straight line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kinema.core.errors import KinemaError
from kinema.core.registry import technique
from kinema.core.technique import Step, Technique

if TYPE_CHECKING:
    from kinema.core.run import Run


@technique(
    "linear_leap",
    paper="arXiv:2502.04363",
    base="Open-Sora 1.2",
    neutral=dict(least=1.0),
)
@dataclass(frozen=True, kw_only=True)
class LinearLeap(Technique):
    """x_0 = x_i - t_i v_i from the step i on in which cos(v_i, v_i-1) has not grown by `tolerance` `patience` times.

    The clean estimate of step i, guided and edited, stays what it is: the steps behind it ask neither the network nor
    the guidance. So the result is x_0 with every solver that ends at its last clean estimate, those of several steps
    too, and with every guidance, also one that is no sum of branches or keeps a momentum, which acts up to step i.
    Techniques behind it in the list still edit the estimate.
    Paper: "On-device Sora: Enabling Training-Free Diffusion-based Text-to-Video Generation for Mobile Devices", 2025,
    arXiv:2502.04363, linear proportional leap. Departures: the authors' code compares one channel of one frame of the
    first sample, here it is each sample as a whole, without frames that are given, and a batch leaps with its last one;
    14 steps are a share of the 30 of the paper. `at` leaps after a fixed share of the steps, as their app does.
    Shapes: latents and velocities (B, C, T, H, W).
    Raises: KinemaError at start, for values out of range, and for models that make sound along with the video.
    """

    least: float = 14 / 30  # share of the steps before cosines are looked at, 0..1; 1 never leaps
    tolerance: float = 1e-3  # by which a cosine must grow to count as better, no unit
    patience: int = 3  # steps without a better cosine, 1 or more
    at: float | None = None  # leaps in the step after this share of all, 0..1; None waits for the cosines

    def start(self, run: Run) -> None:
        if not 0 <= self.least <= 1 or self.patience < 1 or not self.tolerance >= 0:
            raise KinemaError(
                f"least {self.least} of linear_leap must be 0 to 1, tolerance {self.tolerance} 0 or more, "
                f"patience {self.patience} 1 or more"
            )
        if self.at is not None and not 0 <= self.at < 1:
            raise KinemaError(f"at of linear_leap is {self.at}; use 0 or more and less than 1, or none")
        if run.conditions.companion is not None:
            raise KinemaError("linear_leap asks the network no more, and its sound needs every step; leave it out")
        none = torch.zeros(len(run.requests))
        run.state[self] = {"v": None, "best": none, "left": none.long() + self.patience, "x0": None}

    def rest(self, step: Step) -> bool:
        assert step.run is not None
        return step.run.state[self]["x0"] is not None

    def clean(self, step: Step, x0: Tensor) -> Tensor:
        assert step.run is not None and step.x is not None
        state = step.run.state[self]
        if state["x0"] is not None:
            kept: Tensor = state["x0"]
            return kept
        if self._leaps(step, step.run.path.velocity_to(x0, step.x, step.t), state):
            state["x0"] = x0
        return x0

    def _leaps(self, step: Step, v: Tensor, state: dict[str, Any]) -> bool:
        """Whether step `step` with the velocity v is the last that asks the network."""
        if self.at is not None:
            return step.index >= round(self.at * step.count)
        assert step.run is not None
        before, conditions = state["v"], step.run.conditions
        if conditions.known_frames is not None:
            v = v.masked_fill(conditions.known_frames, 0)
        state["v"] = v
        if before is None or step.index < round(self.least * step.count):
            return False
        cosine = torch.nn.functional.cosine_similarity(v.flatten(1), before.flatten(1), dim=1).cpu()
        better = cosine > state["best"] + self.tolerance
        straight = state["left"] == 0  # a sample that was straight once stays so
        state["best"] = torch.where(better, cosine, state["best"])
        state["left"] = torch.where(straight, 0, torch.where(better, self.patience, state["left"] - 1))
        return bool((state["left"] == 0).all())
