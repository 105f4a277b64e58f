"""Objectives: at which noise levels a network learns, and what an error counts there.

A backbone gives the velocity v = noise - x0 whatever its network predicts (`core/path.py`), and with x and t given, an
error e of the velocity is an error (1 - t) e of the noise, t e of the clean sample, and sqrt((1 - t)^2 + t^2) e of
v = a noise - s x0. So an objective is two choices: a distribution of t, and a weight w(t) of |e|^2.

    flow      w = 1                      Liu et al., "Flow Straight and Fast", 2022, arXiv:2209.03003
    epsilon   w = (1 - t)^2              Ho et al., "Denoising Diffusion Probabilistic Models", 2020, arXiv:2006.11239
    v         w = (1 - t)^2 + t^2        Salimans and Ho, "Progressive Distillation", 2022, arXiv:2202.00512
    min-SNR   w = min((1 - t)^2, g t^2)  Hang et al., "Efficient Diffusion Training via Min-SNR", 2023, arXiv:2303.09556

The last one weighs the clean sample's error by min(SNR, g), SNR = (1 - t)^2 / t^2, in the place of the other three.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kinema.core.path import RectifiedFlow, shift_times
from kinema.core.schedule import Clock

FLOW = RectifiedFlow()
LOSS_BUCKETS = 5  # equal parts of 0..1 for which the loss is logged apart


@dataclass(frozen=True, kw_only=True)
class ObjectiveSettings:
    """Section `objective` of a stage."""

    kind: Literal["flow", "epsilon", "v"] | None = None  # None: what the network predicts
    times: Literal["logit_normal", "uniform", "mode", "truncated_normal"] = "logit_normal"
    mean: float = 0.0  # of the normal under logit_normal, or of truncated_normal itself
    std: float = 1.0
    low: float = 0.0  # lowest time of truncated_normal, 0..1
    mode_scale: float = 1.29  # of mode; 0 is uniform, above more times in the middle
    shift: float = 1.0  # of the times; above 1 is more noise
    min_snr: float | None = None  # g, for example 5; None leaves the objective's own weight

    def __post_init__(self) -> None:
        if not math.isfinite(self.mean) or not math.isfinite(self.std):
            raise ValueError(f"mean and std of an objective are {self.mean} and {self.std}; use finite numbers")
        if self.times == "truncated_normal" and not self.low <= self.mean <= 1:
            raise ValueError(f"mean is {self.mean}; use a time from low, {self.low}, to 1 with truncated_normal")
        if self.std <= 0 or self.shift <= 0 or (self.min_snr is not None and self.min_snr <= 0):
            raise ValueError("std, shift and min_snr of an objective must be above 0")
        if not 0 <= self.low < 1:
            raise ValueError(f"low is {self.low}; use 0 up to below 1")
        if not -1.0 <= self.mode_scale <= 2 / (math.pi - 2):
            raise ValueError(f"mode_scale is {self.mode_scale}; use -1 to {2 / (math.pi - 2):.2f}")


class Objective:
    """`clock` holds the training steps of a network that counts in them; its times are then theirs."""

    def __init__(self, settings: ObjectiveSettings, kind: str, clock: Clock | None = None) -> None:
        self.settings, self.kind = settings, settings.kind or kind
        self.levels = None if clock is None else torch.tensor(clock.levels, dtype=torch.float64)

    def times(self, batch: int, generator: torch.Generator) -> Tensor:
        """Times (B,) in 0..1, one for each clip.

        The uniform numbers under them are spread: one in each B-th part, in random order, which leaves the
        distribution as it is and makes the loss of a batch less noisy ("Variational Diffusion Models", Kingma et al.,
        2021, arXiv:2107.00630, appendix I.1). With a clock they choose a training step, and its level is the time.
        """
        s = self.settings
        offset = torch.rand(1, generator=generator)
        order = torch.randperm(batch, generator=generator)
        u = ((order + offset) / batch).clamp(1e-4, 1 - 1e-4)
        if s.times == "logit_normal":
            # Esser et al., "Scaling Rectified Flow Transformers", 2024, arXiv:2403.03206, section 3.1
            u = torch.sigmoid(s.mean + s.std * torch.special.ndtri(u))
        elif s.times == "truncated_normal":
            ends = torch.special.ndtr(
                torch.tensor([(s.low - s.mean) / s.std, (1 - s.mean) / s.std], dtype=torch.float64)
            )
            u = (s.mean + s.std * torch.special.ndtri(torch.lerp(ends[0], ends[1], u.double()))).float()
        elif s.times == "mode":
            # the same, equation 20: t = 1 - u - m (cos^2(pi u / 2) - 1 + u)
            u = 1 - u - s.mode_scale * (torch.cos(math.pi / 2 * u) ** 2 - 1 + u)
        u = shift_times(u, s.shift).clamp(0, 1)
        if self.levels is None:
            return u
        step = (u * len(self.levels)).long().clamp(max=len(self.levels) - 1)
        return self.levels[step].float()

    def weight(self, t: Tensor) -> Tensor:
        """w(t), of the shape of t."""
        data, noise = (1 - t) ** 2, t**2
        if self.settings.min_snr is not None:
            return torch.minimum(data, self.settings.min_snr * noise)
        return {"flow": torch.ones_like(t), "epsilon": data, "v": data + noise}[self.kind]

    def losses(self, velocity: Tensor, target: Tensor, times: Tensor) -> Tensor:
        """Each clip's weighted mean squared error to the velocity `target`, (B,), over its frames with a time above 0.
        Frames at 0 are given, and nothing is learned there.

        velocity, target: (B, C, T, H, W); times: (B, T).
        """
        error = (velocity.float() - target.float()).square().mean(dim=(1, 3, 4))  # (B, T)
        learned = (times > 0).to(error.dtype)
        error = error * self.weight(times) * learned
        return error.sum(1) / learned.sum(1).clamp_min(1)


# -- frames that are given clean ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class GivenSettings:
    """Which latent frames are given clean, where some are: shares of the clips, which add up to 1."""

    first: float = 0.35
    first_k: float = 0.2  # the first k, 1 to all but one
    last: float = 0.1
    first_and_last: float = 0.15
    any: float = 0.2  # each by a coin whose bias is drawn for the clip

    def __post_init__(self) -> None:
        shares = self.shares
        if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            raise ValueError(f"the shares of given frames are {shares}; use numbers of 0 or more that add up to 1")

    @property
    def shares(self) -> tuple[float, ...]:
        return (self.first, self.first_k, self.last, self.first_and_last, self.any)


def given_frames(settings: GivenSettings, batch: int, frames: int, generator: torch.Generator) -> Tensor:
    """Which latent frames are given, (B, T) bool; at least one of a clip, and never all.

    A subset of clean frames, each frame with a time of its own, is the independent noise levels of "Diffusion Forcing",
    Chen et al., 2024, arXiv:2407.01392, with two levels.
    Raises: ValueError for a single frame, of which nothing would be left to learn.
    """
    if frames < 2:
        raise ValueError(f"a clip of {frames} latent frame cannot have a clean one and one to learn; use 2 or more")
    index = torch.arange(frames)
    choice, bias = torch.rand(2, batch, generator=generator)
    count = torch.randint(1, frames, (batch,), generator=generator)
    coins = torch.rand(batch, frames, generator=generator) < bias[:, None]
    always, never = torch.rand(batch, frames, generator=generator).topk(2, dim=1).indices.unbind(1)
    ends = torch.cumsum(torch.tensor(settings.shares[:-1]), 0)
    kind = torch.bucketize(choice, ends, right=True)  # 0 to 4, in the order of the settings
    first, last = (index == 0).expand(batch, frames), (index == frames - 1).expand(batch, frames)
    both = first | last if frames > 2 else first
    some = (coins | (index == always[:, None])) & (index != never[:, None])
    patterns = torch.stack([first, index < count[:, None], last, both, some])  # (5, B, T)
    return patterns[kind, torch.arange(batch)]


def frame_times(t: Tensor, given: Tensor) -> Tensor:
    """Times of the frames (B, T): 0 for given frames (B, T bool), the clip's own t (B,) for the others."""
    return t[:, None] * ~given


def bucket_losses(clips: Tensor, t: Tensor) -> dict[str, float]:
    """Mean of the clips' losses (B,) for each fifth of 0..1 that a time t (B,) fell into; empty ones left out."""
    index = (t * LOSS_BUCKETS).long().clamp(0, LOSS_BUCKETS - 1)
    found: dict[str, float] = {}
    for k in range(LOSS_BUCKETS):
        chosen = clips[index == k]
        if len(chosen):
            found[f"loss_t{k / LOSS_BUCKETS:.1f}"] = float(chosen.mean())
    return found
