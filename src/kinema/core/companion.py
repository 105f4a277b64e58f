"""What some models make along with the video, in the same calls of the network: its sound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kinema.core.errors import KinemaError


@dataclass
class Companion:
    """A second state of one run, at the noise level of the video's latents before and after every step.

    The network reads `x` in each of its calls and answers for it too. The run keeps the answers by branch of the
    guidance and lets its owner guide them as it guides the video; the solver advances `x`. No other hook sees it.
    Shapes: as the video's, (B, C, T, H, W), with a time T of its own.
    """

    name: str  # what it is, for example "sound"
    x: Tensor  # noise before the first step, data after the last
    answers: list[Tensor] = field(default_factory=list)  # velocities from the calls in progress, one behind the other
    v: Tensor | None = None  # the velocity after guidance
    _step: dict[str, Tensor] = field(default_factory=dict)  # branch -> what the network answered in this step
    _last: dict[str, Tensor] = field(default_factory=dict)  # branch -> its velocity in the step before

    def keep(self, branches: Sequence[str]) -> None:
        """Takes what the network answered to the calls in progress for these branches, in this order."""
        found = torch.cat(self.answers).chunk(len(branches))
        self._step.update(zip(branches, found, strict=True))  # a branch asked for twice has its last answer
        self.answers.clear()

    def taken(self, branches: Sequence[str]) -> dict[str, Tensor]:
        """The velocities of a step's branches, after all its calls.

        A branch for which a technique did not ask the network has what it had in the step before, moved as the first
        branch moved for which it was asked.
        Raises: KinemaError where there was no step before.
        """
        if lost := [branch for branch in branches if branch not in self._step and branch not in self._last]:
            raise KinemaError(f"the network was not asked for {lost[0]!r} yet, and the {self.name} needs its answer")
        asked = next((branch for branch in self._step if branch in self._last), None)
        moved = 0 if asked is None else self._step[asked] - self._last[asked]
        self._last = {branch: v + moved for branch, v in self._last.items()} | self._step
        self._step = {}
        return {branch: self._last[branch] for branch in branches}
