"""`kinema train`: from nothing to a model, by a recipe anyone can read and rerun."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from kinema.core.errors import KinemaError

if TYPE_CHECKING:
    from kinema.training.trainer import Report

app = typer.Typer(add_completion=False)

# Section of a recipe -> what of the run's folder is deleted when it begins anew. The order is that of a training.
STAGES = {
    "stage1": ("autoencoder", "vae", "latents"),
    "stage2": ("text_to_video", "tokenizer"),
    "judge": ("checkpoints", "log.jsonl", "judge"),
    "sight": ("checkpoints", "log.jsonl", "sight"),
    "event_times": ("checkpoints", "log.jsonl", "event_times"),
}


@app.command()
def train(
    recipe: str = typer.Argument(..., metavar="RECIPE", help="mini, judge, sight, event_times, or a .yaml file."),
    overrides: list[str] = typer.Argument(None, metavar="SECTION.KEY=VALUE", help="Settings of the recipe to replace."),
    out: Path = typer.Option(None, metavar="FOLDER", help="Folder of the run; default: runs/RECIPE."),
    stage: str = typer.Option(None, metavar="NAME", help="Only this section of the recipe, for example stage1."),
    device: str = typer.Option(None, metavar="DEVICE", help="cpu, cuda, cuda:1; default: cuda where there is one."),
    seconds: float = typer.Option(None, metavar="SECONDS", help="Time budget of each stage, instead of the recipe's."),
    steps: int = typer.Option(None, metavar="STEPS", help="Steps of each stage, instead of the recipe's budget."),
    autoencoder: Path = typer.Option(None, metavar="FOLDER", help="Trained autoencoder, instead of training one."),
    resume: bool = typer.Option(
        True, "--resume/--restart", help="Go on from the newest checkpoint, or delete it and begin anew."
    ),
    export: Path = typer.Option(
        None, metavar="FOLDER", help="Train nothing; write the newest checkpoint as a model there."
    ),
) -> None:
    """Train a model from nothing, or go on where a training stopped.

    Ctrl-C saves a checkpoint; the same command goes on from it.

    Example: kinema train mini stage2.trainer.batch_size=64 --out runs/mini
    """
    # Threads of torch that wait for one another spin by default, which takes the processor from the one waited for
    # when anything else runs beside the training. It must be said before torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from kinema.training.recipe import read_recipe

    _check_budget(seconds, steps)
    sections = read_recipe(recipe, overrides or ())
    stages = _stages(sections, recipe, stage, autoencoder)
    job = Job(
        recipe=recipe,
        overrides=[*(overrides or ()), *_budget(stages, seconds, steps)],
        folder=out or Path("runs") / Path(recipe).stem,
        device=_device(device),
        autoencoder=autoencoder,
    )
    if export is not None:
        typer.echo(f"wrote {job.export(export)}")
        return
    for name in stages:
        job.settings(name)  # what a later stage refuses is refused before the first one trains
    for name in stages:
        if not resume:
            for part in STAGES[name]:
                shutil.rmtree(job.folder / part, ignore_errors=True)
        report = job.run(name)
        if report.interrupted:
            print(f"kinema: stopped at step {report.step} of {name}; the same command goes on", file=sys.stderr)
            raise typer.Exit(130)
    typer.echo(f"finished: {job.folder}")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of a recipe in a folder."""

    recipe: str
    overrides: Sequence[str]
    folder: Path
    device: str
    autoencoder: Path | None  # an autoencoder from elsewhere

    @property
    def vae(self) -> Path:
        """Where stage 2 finds the autoencoder."""
        return self.autoencoder or self.folder / "vae"

    def settings(self, name: str) -> Any:
        """A stage's section as its settings."""
        from kinema.training.recipe import load_section

        kind: Any
        if name == "stage1":
            from kinema.training.autoencoder import AutoencoderRecipe as kind
        elif name == "stage2":
            from kinema.training.text_to_video import TextToVideoSettings as kind
        elif name == "judge":
            from kinema.training.judge import JudgeSettings as kind
        elif name == "sight":
            from kinema.training.sight import SightSettings as kind
        else:
            from kinema.training.event_times import EventTimesSettings as kind
        return load_section(self.recipe, name, kind, self.overrides)

    def run(self, name: str) -> Report:
        """Train one stage in the folder, or go on with it."""
        from kinema.files import make_folder

        settings = self.settings(name)
        make_folder(self.folder)
        reader = _reader(name)
        if reader is not None:
            from kinema.training.hardware import hardware

            return reader(settings, self.folder, None, self.device, hardware(self.device))
        from kinema.training.mini import train_autoencoder, train_text_to_video

        if name == "stage1":
            return train_autoencoder(settings, self.folder / "autoencoder", self.vae, self.device, say=_say)
        return train_text_to_video(settings, self.folder, self.vae, device=self.device, say=_say)

    def export(self, out: Path) -> Path:
        """Write the newest checkpoint of stage 2 as a model folder."""
        from kinema.training.mini import export_checkpoint

        return export_checkpoint(self.settings("stage2"), self.folder, self.vae, out, self.device)


def _reader(name: str) -> Callable[..., Report] | None:
    """What trains a network that reads clips; None for a stage of a model that makes them."""
    if name not in ("judge", "sight", "event_times"):
        return None
    from importlib import import_module

    train: Callable[..., Report] = getattr(import_module(f"kinema.training.{name}"), f"train_{name}")
    return train


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _check_budget(seconds: float | None, steps: int | None) -> None:
    if seconds is not None and steps is not None:
        raise KinemaError("--seconds and --steps are two budgets; give one of them")
    for name, value in (("--seconds", seconds), ("--steps", steps)):
        if value is not None and not value > 0:  # nan is not, either
            raise KinemaError(f"{name} is {value}; use more than 0")


def _budget(stages: Sequence[str], seconds: float | None, steps: int | None) -> list[str]:
    """The budget as overrides of the trainers' settings."""
    if seconds is None and steps is None:
        return []
    values = (("seconds", seconds), ("steps", steps))
    return [f"{s}.trainer.{key}={'null' if value is None else value}" for s in stages for key, value in values]


def _stages(sections: dict[str, Any], recipe: str, only: str | None, autoencoder: Path | None) -> list[str]:
    """The stages to train, in their order."""
    known = [name for name in STAGES if name in sections]
    if not known:
        raise KinemaError(f"the recipe {recipe!r} has no stage; give it one of the sections {', '.join(STAGES)}")
    if autoencoder is not None and "stage2" not in ([only] if only else known):
        raise KinemaError("--autoencoder is for stage2, which is not among the stages; leave it out")
    if only is not None:
        if only not in known:
            raise KinemaError(f"the recipe {recipe!r} has no stage {only!r}; it has {', '.join(known)}")
        return [only]
    return [name for name in known if not (name == "stage1" and autoencoder is not None)]


def _device(device: str | None) -> str:
    import torch

    from kinema.backbones.load import pick_device

    if device is None:  # not mps: what the world draws with is not all there
        return "cuda" if torch.cuda.is_available() else "cpu"
    return str(pick_device(device))
