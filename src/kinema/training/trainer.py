"""The trainer of every network of kinema: budgets, checkpoints, exact resume.

A stage (see `Stage`) says what is trained, on what, and with which loss; the trainer owns everything else. Data
and noise are functions of (seed, step) alone, so a training that was killed and resumed goes through the same
losses as an unbroken one, as long as its budget is in steps (a budget in seconds ties the learning rate to the
clock). Several processes share each micro-batch, see `training.processes`.

    trainer = Trainer(stage, settings, Path("runs/judge"))
    report = trainer.run()          # resumes by itself when the folder holds a checkpoint
    with trainer.averaged() as first:  # the averaged weights, for export; every process goes through it
        if first:  # and one writes
            stage.modules["judge"].save_pretrained(...)
"""

from __future__ import annotations

import io
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from kinema.training.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from kinema.training.ema import EMA
from kinema.training.hardware import hardware
from kinema.training.optimizer import build_optimizer
from kinema.training.parallel import share
from kinema.training.processes import join
from kinema.training.progress import Progress, duration
from kinema.training.records import Records, with_tensorboard
from kinema.training.settings import TrainerSettings as TrainerSettings
from kinema.training.sharding import gathered

Batch = Mapping[str, Any]
T = TypeVar("T")


class Stage(Protocol):
    """What a training is about.

    It may have a method `evaluate() -> dict[str, float]` as well, called as `sheet` is: numbers that tell how good the
    averaged weights are. Neither uses up the budget, nor random numbers of the training.

    For several processes to do what one does: `batch` draws all that is drawn, noise and times too, for the whole
    micro-batch, and puts it into tensors and lists whose first axis is the clips, see `Processes.share`; `loss` is the
    mean over the clips it is given. What weighs clips against each other (a count of learned frames) is made a weight
    of each clip in `batch`, with mean 1 over the micro-batch. Numbers drawn in `loss` differ between the processes.
    """

    modules: Mapping[str, nn.Module]
    """The trained networks by name; frozen helpers stay outside. A parameter that needs no gradient is not trained."""

    def batch(self, step: int, generator: torch.Generator) -> Batch:
        """The data of micro-batch `step`, a function of the two arguments alone; tensors are moved to the device."""

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        """The scalar loss of a batch and numbers to log; the generator lives on the device of the training."""

    def sheet(self, path: Path) -> None:
        """Draw samples as a PNG at `path`; called with the averaged weights swapped in, in eval mode."""


@dataclass(frozen=True)
class Report:
    """How a training ended."""

    step: int  # optimizer steps in all
    clips: int  # clips seen in all
    seconds: float  # time trained, over all resumes
    loss: float  # mean over the last 100 steps
    interrupted: bool  # True: stopped by a signal, saved, and can be resumed


DATA, LOSS, LAYERS = range(3)  # streams of random numbers: of `batch`, of `loss`, of torch's own generator
STOPS = ("SIGINT", "SIGTERM", "SIGUSR1")  # the last one by clusters, some time before they end a job


def mixed(seed: int, stream: int, step: int) -> int:
    """A seed that depends on (seed, stream, step) only; mixed by splitmix64 (Steele et al., 2014)."""
    mask = (1 << 64) - 1
    z = 0
    for value in (seed, stream, step):
        z = (z + value + 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        z ^= z >> 31
    return z >> 1


def seeded(seed: int, stream: int, step: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that depends on (seed, stream, step) only, see `mixed`."""
    return torch.Generator(device).manual_seed(mixed(seed, stream, step))


class Trainer:
    """Trains a stage in a folder; see the head of this file.

    The folder gets `checkpoints/` and what `training.records` lists, written by the first of several processes.
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
        if settings.evaluates and not hasattr(stage, "evaluate"):
            raise ValueError("this stage has no evaluation; leave evaluate_steps and evaluate_seconds out")
        with_tensorboard(settings.tensorboard)
        self.processes = join(device)
        self.device = self.processes.device
        self.shared = share(stage.modules, stage.loss, self.processes, settings.parallel)
        self.parameters = [p for m in stage.modules.values() for p in m.parameters() if p.requires_grad]
        if not self.parameters:
            raise ValueError("nothing to train: no parameter of the stage's modules needs a gradient")
        self.optimizer = build_optimizer(
            stage.modules.values(), settings.optimizer, settings.lr, settings.betas, settings.weight_decay
        )
        self.ema = EMA(stage.modules, settings.ema, settings.ema_sigma_rel, self.shared.twins)
        self.progress = progress or Progress(None if self.processes.first else io.StringIO())
        self.step, self.seconds = 0, 0.0
        self.asked: int | None = None  # number of the signal that asked this process to stop
        self.stopped: int | None = None  # of the signal that asked any of them
        self.records: Records | None = None  # of the first process
        self.evaluated: int | None = None  # steps done at the last evaluation
        self.last = dict.fromkeys(("evaluate", "save", "draw"), 0.0)  # when it was done, on this process's clock

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
        if self.records is not None:
            self.records.flush()
        device, count = hardware(self.device), self.processes.count
        state = {
            "seconds": self.seconds,
            "seed": self.settings.seed,
            "settings": asdict(self.settings),
            "hardware": device if count == 1 else f"{count} x {device}",
        }
        folder, modules = self.folder / "checkpoints", self.stage.modules
        path = save_checkpoint(folder, self.step, modules, self.ema, self.optimizer, state, writes=self.processes.first)
        self.processes.wait()
        return path

    @property
    def done(self) -> float:
        """Fraction of the budget used, 0..1."""
        s = self.settings
        return min(1.0, self.step / s.steps if s.steps else self.seconds / (s.seconds or 1.0))

    # -- the loop ------------------------------------------------------------------------------------------------

    def run(self) -> Report:
        """Train until the budget is used or a signal asks to stop; resumes when the folder holds a checkpoint.

        The signals (STOPS) end the present step, save a checkpoint and return with `interrupted`.
        Raises FloatingPointError when the loss is not finite.
        """
        if self.resume():
            self.progress.close(f"resumed at step {self.step}, {duration(self.seconds)} trained")
        if self.processes.first:
            self.records = Records(self.folder, self.step, self.settings.tensorboard)
        told = None if self.records is None else self.records.evaluated_at()
        self.evaluated = self.processes.gather(told)[0]
        self.last = dict.fromkeys(self.last, time.monotonic())
        for module in self.stage.modules.values():
            module.train()
        try:
            with self._signals(), self._random_state(), ThreadPoolExecutor(max_workers=1) as worker:
                self._loop(worker)
            if self.done == 1.0 and self.settings.evaluates and self.evaluated != self.step:
                self.evaluate()
            self.save()
            self.draw()
            loss = self.processes.gather(self.records.last_loss() if self.records else 0.0)[0]
        finally:
            if self.records is not None:
                self.records.close()
        interrupted = self.done < 1.0
        self.progress.close(f"{'stopped and saved' if interrupted else 'finished'} at step {self.step}")
        return Report(self.step, self._clips(), self.seconds, loss, interrupted)

    def run_and_write(self, write: Callable[[Report], None]) -> Report:
        """`run`, and once the budget is used the first process has `write` called, with the averaged weights in place.

        An interrupted training writes nothing, and can be resumed.
        """
        report = self.run()
        if not report.interrupted:
            with self.averaged() as first:
                if first:
                    write(report)
        return report

    def _loop(self, worker: ThreadPoolExecutor) -> None:
        """Step after step, with evaluations, checkpoints and pictures in between."""
        ahead: Future[list[Batch]] | None = None
        while self.done < 1.0 and self.stopped is None:
            begun = time.monotonic()
            batches, ahead = self._batches(worker, ahead)
            row = self._train_step(batches)
            self.step += 1
            due = self._agree(time.monotonic() - begun)
            if self.records is not None:
                self.records.step({**row, "seconds": round(self.seconds, 3)})
            self.progress.update(self.step, self._clips(), row["loss"], self.done, self._time_left())
            for what, do in (("evaluate", self.evaluate), ("save", self.save), ("draw", self.draw)):
                if what in due:
                    do()
                    self.last[what] = time.monotonic()

    def _agree(self, elapsed: float) -> set[str]:
        """Take in the seconds of a step; what is due now. The clock of the first process counts, and every stop."""
        told = self.processes.gather((elapsed, self._due(), self.asked))
        seconds, due, _ = told[0]
        self.seconds += seconds  # what is done between the steps does not use up the budget
        self.stopped = next((asked for _, _, asked in told if asked is not None), None)
        return due

    def _due(self) -> set[str]:
        s, now = self.settings, time.monotonic()
        every = {"evaluate": s.evaluate_seconds, "save": s.checkpoint_seconds, "draw": s.sheet_seconds}
        due = {what for what, seconds in every.items() if seconds is not None and now - self.last[what] > seconds}
        return due | ({"evaluate"} if s.evaluate_steps and self.step % s.evaluate_steps == 0 else set())

    def draw(self) -> None:
        """Write the loss curve and a sample sheet (averaged weights, eval mode)."""
        self.progress.tell("drawing samples")
        path = self.folder / f"sheet-{self.step:08d}.png"
        self._look(lambda: self.stage.sheet(path))
        if self.records is not None:
            self.records.sheet(self.step, path)

    def evaluate(self) -> None:
        """Write down what the stage says of the averaged weights."""
        self.progress.tell("evaluating")
        numbers = self._look(self.stage.evaluate)  # type: ignore[attr-defined]  # not every stage has one
        if self.records is not None and numbers is not None:
            self.records.evaluation(self.step, {key: float(value) for key, value in numbers.items()})
        self.evaluated = self.step

    @contextmanager
    def averaged(self) -> Iterator[bool]:
        """Inside the `with`, the modules hold the averaged weights, and it is told whether this process is the first.

        All processes go through it; the first one looks at the weights, and the others wait for it.
        """
        with self.ema.swapped_in():
            yield self.processes.first
            self.processes.wait()

    def _look(self, at: Callable[[], T]) -> T | None:
        """What the first process gets, with averaged weights, eval mode, and random numbers that are put back."""
        found = None
        with self._random_state(), self.averaged() as first, torch.no_grad():
            if first:
                for module in self.stage.modules.values():
                    module.eval()
                found = at()
        for module in self.stage.modules.values():
            module.train()
        return found

    def _train_step(self, batches: list[Batch]) -> dict[str, float]:
        """One optimizer step over its micro-batches; the numbers to log."""
        s = self.settings
        lr = s.lr_at(self.step, self.done)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        told: list[dict[str, Tensor]] = []  # by the micro-batches
        for i, batch in enumerate(batches):
            loss, extra = self._backward(batch, self.step * s.accumulate + i, last=i == len(batches) - 1)
            told.append({key: torch.as_tensor(value).detach() for key, value in {"loss": loss, **extra}.items()})
        norm = float(gathered(nn.utils.clip_grad_norm_(self.parameters, s.clip_norm)))
        numbers = [{key: float(value) for key, value in each.items()} for each in told]
        row = {"step": self.step, **_means([each for part in self.processes.gather(numbers) for each in part])}
        if not math.isfinite(row["loss"]):
            raise FloatingPointError(
                f"the loss is {row['loss']} at step {self.step}; lower lr (now {s.lr}) and resume from the checkpoint"
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update()
        return {**row, "grad_norm": norm, "lr": lr}

    def _backward(self, batch: Batch, position: int, last: bool) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Add the gradients of a micro-batch; those of the `last` one of a step bring all processes together."""
        s, streams = self.settings, 3 * self.processes.rank
        torch.manual_seed(mixed(s.seed, LAYERS + streams, position))  # dropout draws from torch's own generator
        generator = seeded(s.seed, LOSS + streams, position, self.device)
        with nullcontext() if last else self.shared.alone():
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=s.precision == "bf16"):
                loss, extra = self.shared.loss(_to(batch, self.device), generator)
            torch.autograd.backward(loss / s.accumulate)
        return loss, extra

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
            made = [self.stage.batch(p, seeded(s.seed, DATA, p)) for p in range(first, first + s.accumulate)]
        return [self.processes.share(batch) for batch in made]

    def _clips(self) -> int:
        return self.step * self.settings.accumulate * self.settings.batch_size

    def _time_left(self) -> float | None:
        s = self.settings
        if s.seconds:
            return s.seconds - self.seconds
        speed = self.progress.speed()
        return ((s.steps or 0) - self.step) * s.accumulate * s.batch_size / speed if speed else None

    def _random_state(self) -> AbstractContextManager[None]:
        """Afterwards torch's own generators are as they were."""
        return torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else [])

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """The first of the STOPS sets `asked`; any of them after it acts as it would have without us."""

        def stop(number: int, frame: FrameType | None) -> None:
            self.asked = number
            for other, handler in kept.items():
                signal.signal(other, handler)
            if self.processes.first:  # not through a buffer, which may be in use right now
                os.write(2, b"\nstopping after this step; again to stop at once\n")

        kept: dict[int, Any] = {}
        try:
            for number in (int(getattr(signal, name)) for name in STOPS if hasattr(signal, name)):
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


def _means(told: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each number over the micro-batches, of all processes, that have it."""
    keys = dict.fromkeys(key for numbers in told for key in numbers)
    found = {key: [numbers[key] for numbers in told if key in numbers] for key in keys}
    return {key: sum(values) / len(values) for key, values in found.items()}
