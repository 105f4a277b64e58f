"""From noise levels to steps: a diffusers scheduler, seen in kinema's convention."""

from __future__ import annotations

import copy
import inspect
import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kinema.core.path import VariancePreserving
from kinema.core.technique import Step

if TYPE_CHECKING:
    from kinema.core.companion import Companion
    from kinema.core.run import Run


class Solver:
    """Advances latents by one step with a flow scheduler of diffusers; history lives here, one object a run.

    scheduler: FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler with flow sigmas, or another whose sigmas
    are noise levels 0..1 and whose `step` takes the velocity noise - x0. It is copied, never changed.
    options: what `set_timesteps` takes beside the number of steps, such as `mu` or `sigmas`.
    """

    def __init__(self, scheduler: Any, num_inference_steps: int, device: torch.device, **options: Any) -> None:
        self.scheduler = copy.deepcopy(scheduler)
        if "sigmas" in options:
            self.scheduler.set_timesteps(device=device, **options)
        else:
            self.scheduler.set_timesteps(num_inference_steps, device=device, **options)
        if hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(0)  # rounded timesteps may repeat; the first step is still the first
        self.timesteps: Tensor = self.scheduler.timesteps
        self.levels = self._levels()

    def _levels(self) -> list[float]:
        """Noise level before each step and after the last."""
        return [float(s) for s in self.scheduler.sigmas]

    def __len__(self) -> int:
        return len(self.timesteps)

    @property
    def draws_noise(self) -> bool:
        """Whether steps add fresh noise, so that little is left of the one a clip began with."""
        config, kind = self.scheduler.config, type(self.scheduler).__name__
        by_kind = "Ancestral" in kind or kind == "CogVideoXDPMScheduler"
        by_setting = "sde" in config.get("algorithm_type", "") or config.get("stochastic_sampling", False)
        return by_kind or bool(by_setting)

    def begin(self, noise: Tensor) -> Tensor:
        """Latents at the first level, from unit noise."""
        return noise

    def steps(self, run: Run | None = None) -> Iterator[Step]:
        train_steps = self.scheduler.config.num_train_timesteps
        for i, timestep in enumerate(self.timesteps.tolist()):
            # Some schedulers round what they tell the model; the exact level is the sigma.
            yield Step(i, len(self), self.levels[i], self.levels[i + 1], t_model=timestep / train_steps, run=run)

    def advance(self, x: Tensor, velocity: Tensor, step: Step) -> Tensor:
        advanced: Tensor = self.scheduler.step(velocity, self.timesteps[step.index], x, return_dict=False)[0]
        return advanced

    def restart(self) -> None:
        """Forgets the steps so far, for who has put the latents elsewhere: a solver of several begins anew there.

        Without it such a solver would correct the latents towards where its own steps lead.
        """
        scheduler = self.scheduler
        if hasattr(scheduler, "lower_order_nums"):
            scheduler.lower_order_nums = 0
            scheduler.model_outputs = [None] * len(scheduler.model_outputs)
            scheduler.last_sample = None


class CompanionSolver(Solver):
    """The same for the latents and for a companion beside them, whose steps have a history of their own."""

    def __init__(
        self, scheduler: Any, num_inference_steps: int, device: torch.device, companion: Companion, **options: Any
    ) -> None:
        super().__init__(scheduler, num_inference_steps, device, **options)
        self.companion = companion
        self._beside = copy.deepcopy(self.scheduler)

    def advance(self, x: Tensor, velocity: Tensor, step: Step) -> Tensor:
        companion, timestep = self.companion, self.timesteps[step.index]
        companion.x = self._beside.step(companion.v, timestep, companion.x, return_dict=False)[0]
        return super().advance(x, velocity, step)


def noise_to_signal(alpha_cumprod: float) -> float:
    """s / a of z = a x0 + s noise, from a^2 = alpha_cumprod in 0..1; infinite at 0."""
    return math.inf if alpha_cumprod == 0 else ((1 - alpha_cumprod) / alpha_cumprod) ** 0.5


class Clock:
    """The time that a noise-predicting network is told: which of its training steps has the noise level t.

    alphas_cumprod: a^2 of each training step, from data to noise, as its scheduler keeps them. Levels between two
    steps give a fraction, levels outside them the nearest step.
    """

    def __init__(self, alphas_cumprod: Iterable[Any]) -> None:
        self.levels = [VariancePreserving.level(noise_to_signal(float(a))) for a in alphas_cumprod]

    def at(self, t: float) -> float:
        """The training step of level t; exactly a whole number at a level of `levels`."""
        above = bisect_left(self.levels, t)
        if above == 0 or above == len(self.levels):
            return float(min(above, len(self.levels) - 1))
        low, high = self.levels[above - 1], self.levels[above]
        return above - (high - t) / (high - low)


def on_sigmas(scheduler: Any) -> bool:
    """Whether a scheduler of noise-predicting models has latents x0 + sigma noise, and not a x0 + s noise."""
    return type(scheduler).__name__.startswith("Euler")


class NoiseSolver(Solver):
    """The same with a scheduler of noise-predicting models: DDIM, DPM++, Euler on sigmas, and their relatives.

    Its latents are z = a x0 + s noise, or x0 + sigma noise for Euler; kinema's x is carried in float64 (float32 where
    a device has no other), so that every step sees the same float32 numbers as in diffusers. What comes out of the
    last step counts as data, as in diffusers, also where a scheduler says that a trace of noise is left in it.
    frames_first: the network's latents are (B, T, C, H, W), and so is the noise that a scheduler draws in its steps.
    """

    def __init__(
        self,
        scheduler: Any,
        num_inference_steps: int,
        device: torch.device,
        frames_first: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(scheduler, num_inference_steps, device, **options)
        self.frames_first = frames_first
        self.path = VariancePreserving(self.scheduler.config.prediction_type)
        self.on_sigmas = on_sigmas(self.scheduler)
        if self.on_sigmas:
            self.scheduler.is_scale_input_called = True  # a family scales what its network gets itself
        self.dtype = torch.float32 if device.type == "mps" else torch.float64
        self._accepted = frozenset(inspect.signature(self.scheduler.step).parameters)
        self._last_clean: Tensor | None = None  # for a scheduler that wants it handed back

    def _levels(self) -> list[float]:
        scheduler = self.scheduler
        if hasattr(scheduler, "sigmas"):
            sigmas = [float(s) for s in scheduler.sigmas]
        else:
            sigmas = [noise_to_signal(float(scheduler.alphas_cumprod[k])) for k in self.timesteps.tolist()]
        # A step that stops elsewhere than the next one begins (rounded timesteps) changes nothing: z is what counts.
        return [*(VariancePreserving.level(s) for s in sigmas[: len(self.timesteps)]), 0.0]

    def begin(self, noise: Tensor) -> Tensor:
        return self._inwards(noise * self.scheduler.init_noise_sigma, self.levels[0])

    def steps(self, run: Run | None = None) -> Iterator[Step]:
        for i in range(len(self)):
            yield Step(i, len(self), self.levels[i], self.levels[i + 1], run=run)

    def restart(self) -> None:
        super().restart()
        self._last_clean = None

    def advance(self, x: Tensor, velocity: Tensor, step: Step) -> Tensor:
        z = self._turned(self._outwards(x, step.t).float())
        output = self._turned(self.path.output(velocity.to(self.dtype), x, step.t).float())
        options: dict[str, Any] = {"return_dict": False}
        if "generator" in self._accepted and step.run is not None:
            options["generator"] = step.run.generators
        timestep = self.timesteps[step.index]
        if "old_pred_original_sample" in self._accepted:
            before = self.timesteps[step.index - 1] if step.index else None
            z, self._last_clean = self.scheduler.step(output, self._last_clean, timestep, before, z, **options)
        else:
            z = self.scheduler.step(output, timestep, z, **options)[0]
        return self._inwards(self._turned(z), step.t_next)

    def _turned(self, z: Tensor) -> Tensor:
        return z.transpose(1, 2) if self.frames_first else z

    def _outwards(self, x: Tensor, t: float) -> Tensor:
        return x / (1 - t) if self.on_sigmas else self.path.outwards(x, t)  # 1 + sigma = 1 / (1 - t)

    def _inwards(self, z: Tensor, t: float) -> Tensor:
        z = z.to(self.dtype)
        return z * (1 - t) if self.on_sigmas else self.path.inwards(z, t)
