"""What some models make along with the video, in the same calls of the network: its sound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Companion:
    """A second state of one run, at the noise level of the video's latents before and after every step.

    The network reads `x` in each of its calls and answers for it too. The run keeps the answers by branch of the
    guidance and lets its owner guide them as it guides the video; the solver advances `x`. No other hook sees it: a
    technique that asks the network several times for a branch leaves the last answer, one that does not ask at all
    leaves that of the step before.
    Shapes: as the video's, (B, C, T, H, W), with a time T of its own.
    """

    name: str  # what it is, for example "sound"
    x: Tensor  # noise before the first step, data after the last
    answers: list[Tensor] = field(default_factory=list)  # velocities from the calls in progress, one behind the other
    branches: dict[str, Tensor] = field(default_factory=dict)  # the velocity of each branch
    v: Tensor | None = None  # the velocity after guidance

    def keep(self, branches: Sequence[str]) -> None:
        """Takes what the network answered to the calls in progress for these branches, in this order."""
        found = torch.cat(self.answers).chunk(len(branches))
        self.branches.update(zip(branches, found, strict=True))
        self.answers.clear()
