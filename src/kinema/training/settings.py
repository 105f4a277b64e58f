"""What a person may set of a training, whatever is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from kinema.training.ema import power_exponent


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """How long and how a stage is trained."""

    steps: int | None = None  # optimizer steps; exactly one of steps and seconds is set
    seconds: float | None = None  # time budget of the training itself, over all its resumes
    batch_size: int = 8  # clips of a micro-batch; for the speed shown, the stage makes the batch
    accumulate: int = 1  # micro-batches of an optimizer step
    optimizer: Literal["adamw", "muon"] = "adamw"  # muon: hidden matrices by Muon, the rest by AdamW
    lr: float = 1e-3  # peak learning rate
    betas: tuple[float, float] = (0.9, 0.99)  # of AdamW
    weight_decay: float = 0.01  # of AdamW, on matrices and kernels only
    warmup_steps: int = 100  # optimizer steps of linear rise
    schedule: Literal["cosine", "constant"] = "cosine"  # constant: flat, then linear down
    decay: float = 0.2  # last fraction of the training in which "constant" goes down
    lr_end: float = 0.02  # learning rate at the end, fraction of the peak
    clip_norm: float = 1.0  # gradients are scaled to at most this norm
    ema: float = 0.999  # decay of the weight average per optimizer step
    ema_sigma_rel: float | None = None  # width of a power-function average, fraction of the time; None: `ema` decides
    precision: Literal["bf16", "fp32"] = "bf16"  # autocast of the forward pass; weights stay in float32
    seed: int = 0
    checkpoint_seconds: float = 120.0  # seconds between checkpoints
    sheet_seconds: float = 300.0  # seconds between sample sheets and loss curves
    evaluate_steps: int | None = None  # optimizer steps between evaluations by the stage
    evaluate_seconds: float | None = None  # seconds between them; neither of the two: none
    prefetch: bool = False  # make the next batch in a thread while this one is trained on
    parallel: Literal["data", "fsdp"] = "data"  # of several processes each has all weights, or a part of each weight
    tensorboard: bool | None = None  # write for TensorBoard, too; None: where it is installed

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.seconds is None):
            raise ValueError("give a training either steps or seconds, and not both")
        positive = ("steps", "seconds", "batch_size", "accumulate", "lr", "clip_norm", "evaluate_steps")
        for name in (*positive, "evaluate_seconds"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} is {value}; use more than 0")
        if self.checkpoint_seconds < 0 or self.sheet_seconds < 0:
            raise ValueError("checkpoint_seconds and sheet_seconds must be 0 or more")
        if self.warmup_steps < 0 or not 0 < self.decay <= 1 or not 0 <= self.lr_end <= 1:
            raise ValueError("warmup_steps must be 0 or more, decay above 0 up to 1, lr_end 0 up to 1")
        if not 0 <= self.ema < 1 or not all(0 <= beta < 1 for beta in self.betas) or self.weight_decay < 0:
            raise ValueError("ema and betas must be 0 up to below 1, and weight_decay 0 or more")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed is {self.seed}; use 0 to 2^63 - 1")
        if self.evaluate_steps is not None and self.evaluate_seconds is not None:
            raise ValueError("give evaluations either evaluate_steps or evaluate_seconds, and not both")
        if self.parallel == "fsdp" and self.optimizer == "muon":
            raise ValueError(
                "muon needs whole matrices, of which parallel 'fsdp' leaves each process a part; use adamw"
            )
        if self.ema_sigma_rel is not None:
            power_exponent(self.ema_sigma_rel)

    @property
    def evaluates(self) -> bool:
        """Whether the training is evaluated on its way."""
        return self.evaluate_steps is not None or self.evaluate_seconds is not None

    def lr_at(self, step: int, done: float) -> float:
        """Learning rate at an optimizer step, with `done` (0..1) of the budget used.

        lr * min(1, (step + 1) / warmup_steps) * s(done); cosine s = e + (1 - e) * (1 + cos(pi * done)) / 2,
        constant s = 1, then linear to e = lr_end over the last `decay` of the budget.
        """
        rise = min(1.0, (step + 1) / max(1, self.warmup_steps))
        if self.schedule == "cosine":
            shape = self.lr_end + (1 - self.lr_end) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        else:
            left = min(1.0, max(0.0, (1.0 - done) / self.decay))
            shape = self.lr_end + (1 - self.lr_end) * left
        return self.lr * rise * shape
