"""`kinema train`: from nothing, or from a finished model, by a recipe anyone can read and rerun."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from kinema.core.errors import KinemaError

if TYPE_CHECKING:
    from kinema.training.trainer import Report

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Section:
    """A section that a recipe may have."""

    settings: str  # "module:class" under kinema.training
    leaves: tuple[str, ...]  # what of the run's folder is deleted when it begins anew


def _video(name: str, *more: str) -> Section:
    return Section("video_settings:VideoSettings", (name, *more))


# In the order of a training.
SECTIONS = {
    "stage1": Section("autoencoder:AutoencoderRecipe", ("autoencoder", "vae", "latents")),
    "pictures": _video("pictures"),
    "temporal": _video("temporal"),
    "stage2": _video("stage2"),
    "finetune": _video("finetune", "clips"),
    "lora": Section("lora:LoraSettings", ("lora", "latents")),
    "adapter": Section("adapter:AdapterSettings", ("adapter", "clips")),
    "judge": Section("judge:JudgeSettings", ("checkpoints", "log.jsonl", "judge")),
    "sight": Section("sight:SightSettings", ("checkpoints", "log.jsonl", "sight")),
    "depth": Section("depth:DepthSettings", ("checkpoints", "log.jsonl", "depth")),
    "event_times": Section("event_times:EventTimesSettings", ("checkpoints", "log.jsonl", "event_times")),
    "camera_reader": Section(
        "camera_reader:CameraReaderSettings", ("checkpoints", "log.jsonl", "begun.json", "camera_reader")
    ),
}
VIDEO = tuple(name for name, section in SECTIONS.items() if section.settings.startswith("video"))
OWN_CLIPS = (*VIDEO, "lora", "adapter")  # what trains on a user's clips


@app.command()
def train(
    recipe: str = typer.Argument(
        ...,
        metavar="RECIPE",
        help="mini, mini-mm, mini-unet, finetune, lora, adapter NAME, judge, sight, depth, event_times, camera_reader, "
        "or FILE.yaml.",
    ),
    overrides: list[str] = typer.Argument(
        None, metavar="SECTION.KEY=VALUE", help="Settings of the recipe to replace; data=FOLDER trains on own clips."
    ),
    out: Path = typer.Option(None, metavar="FOLDER", help="Folder of the run; default: runs/RECIPE."),
    model: str = typer.Option(None, metavar="MODEL", help="Begin with this model: embedded, a folder, or a hub id."),
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
    """Train a model, or go on where a training stopped.

    Ctrl-C saves a checkpoint; the same command goes on from it.

    Example: kinema train mini stage2.trainer.batch_size=64 --out runs/mini
    """
    # Threads of torch that wait for one another spin by default, which takes the processor from the one waited for
    # when anything else runs beside the training. It must be said before torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from kinema.training.recipe import read_recipe

    _check_budget(seconds, steps)
    recipe, settings = _adapter(recipe, overrides or [])
    data, settings = _data(settings)
    sections = read_recipe(recipe, settings)
    if data is not None:  # an autoencoder learns from the world, and is not trained for a user's clips
        sections.pop("stage1", None)
    stages = _stages(sections, recipe, stage, autoencoder)
    job = Job(
        recipe=recipe,
        overrides=[*settings, *_budget(stages, seconds, steps), *_from(stages, data, model)],
        folder=out or Path("runs") / Path(recipe).stem,
        device=_device(device),
        autoencoder=autoencoder,
        video=tuple(name for name in VIDEO if name in sections),
        data=data,
        trains_autoencoder="stage1" in sections,
        trains_lora="lora" in sections,
        trains_adapter="adapter" in sections,
    )
    _check_data(job, stages)
    if export is not None:
        typer.echo(f"wrote {job.export(export, stage)}")
        return
    for name in stages:
        job.settings(name)  # what a later stage refuses is refused before the first one trains
    from kinema.backbones.parallel import leave
    from kinema.training.processes import join

    processes = join(job.device)
    for name in stages:
        if not resume and processes.first:
            _delete(job, name)
        processes.wait()
        report = job.run(name)
        if report.interrupted:
            _say(f"kinema: stopped at step {report.step} of {name}; the same command goes on")
            leave()
            raise typer.Exit(130)
    leave()
    if processes.first:
        typer.echo(f"finished: {job.folder}")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of a recipe in a folder."""

    recipe: str
    overrides: Sequence[str]
    folder: Path
    device: str
    autoencoder: Path | None  # an autoencoder from elsewhere
    video: tuple[str, ...]  # sections of the recipe that train a video model
    data: str | None  # folder of a user's clips
    trains_autoencoder: bool
    trains_lora: bool
    trains_adapter: bool

    def settings(self, name: str) -> Any:
        """A section as its settings."""
        from kinema.training.recipe import load_section

        module, _, kind = SECTIONS[name].settings.partition(":")
        return load_section(
            self.recipe, name, getattr(import_module(f"kinema.training.{module}"), kind), self.overrides
        )

    def place(self, name: str) -> Any:
        """Where a section that trains a video model has its files."""
        from kinema.training.video_settings import Place

        return Place(
            folder=self.folder,
            section=name,
            autoencoder=self.autoencoder or (self.folder / "vae" if self.trains_autoencoder else None),
            last=name == self.video[-1],
            device=self.device,
        )

    def run(self, name: str) -> Report:
        """Train one stage in the folder, or go on with it."""
        from kinema.files import make_folder

        settings = self.settings(name)
        make_folder(self.folder)
        report: Report
        if name in VIDEO:
            from kinema.training.video_model import train_video_model

            return train_video_model(settings, self.place(name), say=_say)
        if name == "stage1":
            from kinema.training.autoencoder import train_autoencoder

            return train_autoencoder(settings, self.folder / "autoencoder", self.folder / "vae", self.device, say=_say)
        if name == "adapter":
            from kinema.training.adapter import train_adapter

            data = None if self.data is None else Path(self.data)
            return train_adapter(settings, self.folder, self.device, data, say=_say)
        if name == "lora":
            from kinema.training.lora import train_lora

            assert self.data is not None, "see _check_data"
            return train_lora(settings, Path(self.data), self.folder, self.device, say=_say)
        from kinema.training.hardware import hardware

        train = getattr(import_module(f"kinema.training.{name}"), f"train_{name}")
        report = train(settings, self.folder, None, self.device, hardware(self.device))
        return report

    def export(self, out: Path, stage: str | None) -> Path:
        """Write the newest checkpoint of a LoRA or, of the last section unless told otherwise, of a video model."""
        if not self.video and stage in (None, "lora") and self.trains_lora:
            from kinema.training.lora import export_lora

            return export_lora(self.settings("lora"), self.folder, out, self.device)
        if not self.video and stage in (None, "adapter") and self.trains_adapter:
            from kinema.training.adapter import export_adapter

            return export_adapter(self.settings("adapter"), self.folder, out, self.device)
        from kinema.training.video_model import export_checkpoint

        if not self.video or (stage is not None and stage not in self.video):
            raise KinemaError(f"--export is for sections that train a video model; the recipe {self.recipe!r} has none")
        name = stage or self.video[-1]
        return export_checkpoint(self.settings(name), self.place(name), out)


def _say(text: str) -> None:
    """Tell it once, however many processes train."""
    from kinema.cli import process

    if process()[0] == 0:
        print(text, file=sys.stderr, flush=True)


def _adapter(recipe: str, overrides: Sequence[str]) -> tuple[str, list[str]]:
    """`adapter NAME` is the recipe adapter-NAME. Raises: KinemaError with the names there are."""
    if recipe != "adapter":
        return recipe, list(overrides)
    from kinema.training.recipe import RECIPES

    known = sorted(path.stem.removeprefix("adapter-") for path in RECIPES.glob("adapter-*.yaml"))
    name = overrides[0] if overrides else ""
    if name not in known:
        raise KinemaError(
            f"say which adapter to train, as in kinema train adapter {known[0]}; known: {', '.join(known)}"
        )
    return f"adapter-{name}", list(overrides[1:])


def _data(overrides: Sequence[str]) -> tuple[str | None, list[str]]:
    """The folder of data=FOLDER, and the other overrides."""
    folders = [text.partition("=")[2] for text in overrides if text.startswith("data=")]
    if len(folders) > 1 or "" in folders:
        raise KinemaError("data=FOLDER names the folder of clips; give it once")
    if folders and not Path(folders[0]).is_dir():
        raise KinemaError(f"there is no folder {folders[0]!r} of clips; give one with data=FOLDER")
    return (folders[0] if folders else None), [text for text in overrides if not text.startswith("data=")]


def _delete(job: Job, name: str) -> None:
    """Delete what a section has left in the run's folder, and the fresh model with its first one that had need of it.

    Raises: KinemaError, before anything is deleted, for a folder that no training has made.
    """
    parts = [job.folder / part for part in SECTIONS[name].leaves]
    if job.video and name in (job.video[0], "stage1"):
        parts.append(job.folder / "start")
    for part in parts:
        marks = ("checkpoints", "log.jsonl", "config.json", "cache.json", "model_index.json", "step-*", "clip-*")
        if part.is_dir() and any(part.iterdir()) and not any(next(part.glob(mark), None) for mark in marks):
            raise KinemaError(f"{part} holds other things than a training; move it away, or use another folder")
    for part in parts:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def _check_data(job: Job, stages: Sequence[str]) -> None:
    """Raises: KinemaError when a user's clips are missing, or lie where the training writes and --restart deletes."""
    if job.data is None:
        if "lora" in stages or ("finetune" in stages and job.settings("finetune").data is None):
            raise KinemaError("this trains on clips of your own; name their folder with data=FOLDER")
        return
    data = Path(job.data).resolve()
    for part in ("model", "clips", *(leaf for name in stages for leaf in SECTIONS[name].leaves)):
        own = (job.folder / part).resolve()
        if data.is_relative_to(own) or own.is_relative_to(data):
            raise KinemaError(
                f"the clips in {job.data} would lie among what the training writes into {job.folder / part}; "
                "name another folder with --out"
            )


def _from(stages: Sequence[str], data: str | None, model: str | None) -> list[str]:
    """The clips and the model of a training as overrides of its settings."""
    own = [name for name in stages if name in OWN_CLIPS]
    if (data is not None or model is not None) and not own:
        raise KinemaError("data=FOLDER and --model are for sections that train a video model, and there is none")
    found = [f"{name}.data={_quoted(data)}" for name in own if data is not None and name in VIDEO]
    if model is not None:
        found.append(f"{own[0]}.{'start_from' if own[0] in VIDEO else 'model'}={_quoted(model)}")
    return found


def _quoted(text: str) -> str:
    """In the form of JSON, which is YAML: a name is a text whatever it looks like.

    Not in ASCII, where JSON writes a sign beyond U+FFFF as two, which YAML does not put together again.
    """
    return json.dumps(text, ensure_ascii=False)


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
    known = [name for name in SECTIONS if name in sections]
    if not known:
        raise KinemaError(f"the recipe {recipe!r} has no stage; give it one of the sections {', '.join(SECTIONS)}")
    if autoencoder is not None and not set([only] if only else known) & set(VIDEO):
        raise KinemaError("--autoencoder is for training a video model, which none of the stages does; leave it out")
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
