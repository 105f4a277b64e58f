"""The trainer of every network of kinema: budgets, checkpoints, exact resume.

A stage (see `Stage`) says what is trained, on what, and with which loss; the trainer owns everything else. Data
and noise are functions of (seed, step) alone, so a training that was killed and resumed goes through the same
losses as an unbroken one, as long as its budget is in steps (a budget in seconds ties the learning rate to the
clock).

    trainer = Trainer(stage, settings, Path("runs/judge"))
    report = trainer.run()          # resumes by itself when the folder holds a checkpoint
    with trainer.ema.swapped_in():  # the averaged weights, for evaluation and export
        stage.modules["judge"].save_pretrained(...)
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from kinema.training.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from kinema.training.ema import EMA
from kinema.training.hardware import hardware
from kinema.training.optimizer import build_optimizer
from kinema.training.progress import Log, Progress, draw_curve, duration, read_log

Batch = Mapping[str, Any]


class Stage(Protocol):
    """What a training is about."""

    modules: Mapping[str, nn.Module]
    """The trained networks by name; frozen helpers stay outside. A parameter that needs no gradient is not trained."""

    def batch(self, step: int, generator: torch.Generator) -> Batch:
        """The data of micro-batch `step`, a function of the two arguments alone; tensors are moved to the device."""

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        """The scalar loss of a batch and numbers to log; the generator lives on the device of the training."""

    def sheet(self, path: Path) -> None:
        """Draw samples as a PNG at `path`; called with the averaged weights swapped in, in eval mode."""


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
    precision: Literal["bf16", "fp32"] = "bf16"  # autocast of the forward pass; weights stay in float32
    seed: int = 0
    checkpoint_seconds: float = 120.0  # seconds between checkpoints
    sheet_seconds: float = 300.0  # seconds between sample sheets and loss curves
    prefetch: bool = False  # make the next batch in a thread while this one is trained on

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.seconds is None):
            raise ValueError("give a training either steps or seconds, and not both")
        for name in ("steps", "seconds", "batch_size", "accumulate", "lr", "clip_norm"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} is {value}; use more than 0")
        if self.warmup_steps < 0 or not 0 < self.decay <= 1 or not 0 <= self.lr_end <= 1:
            raise ValueError("warmup_steps must be 0 or more, decay above 0 up to 1, lr_end 0 up to 1")

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


@dataclass(frozen=True)
class Report:
    """How a training ended."""

    step: int  # optimizer steps in all
    clips: int  # clips seen in all
    seconds: float  # time trained, over all resumes
    loss: float  # mean over the last 100 steps
    interrupted: bool  # True: stopped by Ctrl-C or SIGTERM, saved, and can be resumed


def seeded(seed: int, stream: int, step: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that depends on (seed, stream, step) only; mixed by splitmix64 (Steele et al., 2014)."""
    mask = (1 << 64) - 1
    z = 0
    for value in (seed, stream, step):
        z = (z + value + 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        z ^= z >> 31
    return torch.Generator(device).manual_seed(z >> 1)


class Trainer:
    """Trains a stage in a folder; see the head of this file.

    The folder gets `checkpoints/`, `log.jsonl` (a line a step), `loss.png` and `sheet-NNNNNNNN.png`.
    """

    def __init__(
        self,
        stage: Stage,
        settings: TrainerSettings,
        folder: Path,
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
    ) -> None:
        self.stage, self.settings, self.folder = stage, settings, Path(folder)
        self.device = torch.device(device)
        for module in stage.modules.values():
            module.to(self.device)
        self.parameters = [p for m in stage.modules.values() for p in m.parameters() if p.requires_grad]
        if not self.parameters:
            raise ValueError("nothing to train: no parameter of the stage's modules needs a gradient")
        self.optimizer = build_optimizer(
            stage.modules.values(), settings.optimizer, settings.lr, settings.betas, settings.weight_decay
        )
        self.ema = EMA(stage.modules, settings.ema)
        self.progress = progress or Progress()
        self.step, self.seconds = 0, 0.0
        self.stopped: int | None = None  # number of the signal that asked to stop

    # -- state ---------------------------------------------------------------------------------------------------

    def resume(self) -> bool:
        """Go to the newest checkpoint of the folder, if there is one."""
        found = checkpoints(self.folder / "checkpoints")
        if not found:
            return False
        state = load_checkpoint(found[-1], self.stage.modules, self.ema, self.optimizer)
        if state["seed"] != self.settings.seed:
            raise ValueError(
                f"{self.folder} was begun with seed {state['seed']}, not {self.settings.seed}; use another folder"
            )
        self.step, self.seconds = state["step"], state["seconds"]
        return True

    def save(self) -> Path:
        """Write a checkpoint of the present state."""
        state = {
            "seconds": self.seconds,
            "seed": self.settings.seed,
            "settings": asdict(self.settings),
            "hardware": hardware(self.device),
        }
        return save_checkpoint(
            self.folder / "checkpoints", self.step, self.stage.modules, self.ema, self.optimizer, state
        )

    @property
    def done(self) -> float:
        """Fraction of the budget used, 0..1."""
        s = self.settings
        return min(1.0, self.step / s.steps if s.steps else self.seconds / (s.seconds or 1.0))

    # -- the loop ------------------------------------------------------------------------------------------------

    def run(self) -> Report:
        """Train until the budget is used or a signal asks to stop; resumes when the folder holds a checkpoint.

        SIGINT and SIGTERM end the present step, save a checkpoint and return with `interrupted`.
        Raises FloatingPointError when the loss is not finite.
        """
        resumed = self.resume()
        if resumed:
            self.progress.close(f"resumed at step {self.step}, {duration(self.seconds)} trained")
        log = Log(self.folder / "log.jsonl", self.step)
        for module in self.stage.modules.values():
            module.train()
        try:
            with self._signals(), ThreadPoolExecutor(max_workers=1) as worker:
                self._loop(log, worker)
        finally:
            log.close()
        self.save()
        self.draw()
        interrupted = self.done < 1.0
        self.progress.close(f"{'stopped and saved' if interrupted else 'finished'} at step {self.step}")
        rows = read_log(self.folder / "log.jsonl")[-100:]
        mean = sum(r["loss"] for r in rows) / max(1, len(rows))
        return Report(self.step, self._clips(), self.seconds, mean, interrupted)

    def _loop(self, log: Log, worker: ThreadPoolExecutor) -> None:
        """Step after step, with checkpoints and pictures in between."""
        saved = drawn = time.monotonic()
        ahead: Future[list[Batch]] | None = None
        while self.done < 1.0 and self.stopped is None:
            begun = time.monotonic()
            batches, ahead = self._batches(worker, ahead)
            row = self._train_step(batches)
            self.seconds += time.monotonic() - begun  # checkpoints and pictures do not use up the budget
            self.step += 1
            log.write({**row, "seconds": round(self.seconds, 3)})
            self.progress.update(self.step, self._clips(), row["loss"], self.done, self._time_left())
            if time.monotonic() - saved > self.settings.checkpoint_seconds:
                log.flush()
                self.save()
                saved = time.monotonic()
            if time.monotonic() - drawn > self.settings.sheet_seconds:
                log.flush()
                self.draw()
                drawn = time.monotonic()

    def draw(self) -> None:
        """Write the loss curve and a sample sheet (averaged weights, eval mode)."""
        draw_curve(self.folder / "loss.png", read_log(self.folder / "log.jsonl"))
        modules = self.stage.modules.values()
        with self.ema.swapped_in(), torch.no_grad():
            for module in modules:
                module.eval()
            self.stage.sheet(self.folder / f"sheet-{self.step:08d}.png")
        for module in modules:
            module.train()

    def _train_step(self, batches: list[Batch]) -> dict[str, float]:
        """One optimizer step over its micro-batches; the numbers to log."""
        s = self.settings
        lr = s.lr_at(self.step, self.done)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        numbers: dict[str, Tensor] = {}
        for i, batch in enumerate(batches):
            position = self.step * s.accumulate + i
            generator = seeded(s.seed, 1, position, self.device)
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=s.precision == "bf16"):
                loss, extra = self.stage.loss(_to(batch, self.device), generator)
            torch.autograd.backward(loss / s.accumulate)
            for key, value in {"loss": loss, **extra}.items():
                part = torch.as_tensor(value).detach().float() / s.accumulate
                numbers[key] = numbers[key] + part if key in numbers else part
        norm = nn.utils.clip_grad_norm_(self.parameters, s.clip_norm)
        row = {"step": self.step, **{key: float(value) for key, value in numbers.items()}}
        if not math.isfinite(row["loss"]):
            raise FloatingPointError(
                f"the loss is {row['loss']} at step {self.step}; lower lr (now {s.lr}) and resume from the checkpoint"
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update()
        return {**row, "grad_norm": float(norm), "lr": lr}

    def _batches(
        self, worker: ThreadPoolExecutor, ahead: Future[list[Batch]] | None
    ) -> tuple[list[Batch], Future[list[Batch]] | None]:
        """The micro-batches of this step; with prefetch, all but the first of a run were made ahead."""
        if not self.settings.prefetch:
            return self._make(self.step), None
        ready = ahead.result() if ahead is not None else self._make(self.step)
        return ready, worker.submit(self._make, self.step + 1)

    def _make(self, step: int) -> list[Batch]:
        s = self.settings
        first = step * s.accumulate
        with torch.no_grad():
            return [self.stage.batch(p, seeded(s.seed, 0, p)) for p in range(first, first + s.accumulate)]

    def _clips(self) -> int:
        return self.step * self.settings.accumulate * self.settings.batch_size

    def _time_left(self) -> float | None:
        s = self.settings
        if s.seconds:
            return s.seconds - self.seconds
        speed = self.progress.speed()
        return ((s.steps or 0) - self.step) * s.accumulate * s.batch_size / speed if speed else None

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM set `stopped`; a second one of them acts as it would have without us."""

        def stop(number: int, frame: FrameType | None) -> None:
            self.stopped = number
            signal.signal(number, kept[number])

        kept: dict[int, Any] = {}
        try:
            for number in (int(signal.SIGINT), int(signal.SIGTERM)):
                kept[number] = signal.signal(number, stop)
        except ValueError:  # not the main thread: the caller has the signals
            pass
        try:
            yield
        finally:
            for number, handler in kept.items():
                signal.signal(number, handler)


def _to(batch: Batch, device: torch.device) -> dict[str, Any]:
    return {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}
