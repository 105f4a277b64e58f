"""From noise levels to steps: a diffusers scheduler, seen in kinema's convention."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kinema.core.technique import Step

if TYPE_CHECKING:
    from kinema.core.run import Run


class Solver:
    """Advances latents by one step with a flow scheduler of diffusers; history lives here, one object a run.

    scheduler: FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler with flow sigmas, or another whose sigmas
    are noise levels 0..1 and whose `step` takes the velocity noise - x0. It is copied, never changed.
    """

    def __init__(self, scheduler: Any, num_inference_steps: int, device: torch.device, **options: Any) -> None:
        self.scheduler = copy.deepcopy(scheduler)
        self.scheduler.set_timesteps(num_inference_steps, device=device, **options)
        self.scheduler.set_begin_index(0)  # rounded timesteps may repeat; the first step is still the first
        self.timesteps: Tensor = self.scheduler.timesteps
        self.levels: list[float] = [float(s) for s in self.scheduler.sigmas]
        self.train_steps: int = self.scheduler.config.num_train_timesteps

    def __len__(self) -> int:
        return len(self.timesteps)

    def steps(self, run: Run | None = None) -> Iterator[Step]:
        for i, timestep in enumerate(self.timesteps.tolist()):
            # Some schedulers round what they tell the model; the exact level is the sigma.
            told = timestep / self.train_steps
            yield Step(i, len(self), self.levels[i], self.levels[i + 1], t_model=told, run=run)

    def advance(self, x: Tensor, velocity: Tensor, step: Step) -> Tensor:
        advanced: Tensor = self.scheduler.step(velocity, self.timesteps[step.index], x, return_dict=False)[0]
        return advanced
