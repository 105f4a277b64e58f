"""Does the model show what the prompt asks for? Read by the judge on combinations never rendered in training.

    python -m kinema.claims.adherence --prompts 200 --seed 7
    python -m kinema.claims.adherence --prompts 200 --seed 7 --technique sea_cache

The prompts are a fixed list (`world/prompts`) of scenes whose combination of kind, colour and ground was
kept out of all training. Beside the generated clips the judge reads the rendered clips of the same scenes, and
these after a pass through the model's autoencoder: what it reads wrongly there is its own mistake, not the model's.
Image to video: the rendered first frame is given, and the first frame of the video is compared with it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer
from torch import Tensor

from kinema.claims.statistics import Share, share
from kinema.files import write_text
from kinema.metrics.agreement import ATTRIBUTES, Row, all_right, compare
from kinema.metrics.control.psnr import decibels
from kinema.metrics.judge import Judge
from kinema.video import clip_address
from kinema.world.caption import caption
from kinema.world.motion import simulate
from kinema.world.prompts import Prompt, read_prompts, write_prompts
from kinema.world.render import render_frames
from kinema.world.sample import sample_spec

if TYPE_CHECKING:
    from kinema.backbones.protocol import Backbone

# Aims for a model trained on a CPU alone and for one trained on a GPU, shares of the prompts.
BARS = {
    "kind": (0.88, 0.92),
    "colour": (0.95, 0.97),
    "ground": (0.95, 0.97),
    "sky": (None, None),
    "events": (0.75, 0.85),
    "camera": (0.75, 0.85),
    "all": (0.45, 0.65),
}
FIRST_FRAME_BAR = 28.0  # dB
LIST_SEED = 3_000_000_000  # the scenes of the list were drawn with seeds from here on


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How the clips are made."""

    model: str = "mini"
    seed: int = 7  # clip i has seed + i
    steps: int | None = None  # solver steps; None is the model's own
    guidance_scale: float | None = None  # None is the model's own
    num_frames: int | None = None  # None, here and below, is the model's own
    height: int | None = None  # pixels
    width: int | None = None  # pixels
    batch: int = 8  # clips made together
    techniques: tuple[str, ...] = ()  # NAME or NAME:field=value,... beside the model's own guidance, or in its place
    device: str | None = None
    dtype: str | None = None


@dataclass
class Result:
    """What was read from clips of the prompts, in their order."""

    name: str
    rows: list[list[Row]] = field(default_factory=list)

    def accuracy(self, attribute: str) -> Share:
        """Of the prompts that ask for the attribute; "all": everything asked for at once."""
        if attribute == "all":
            return share([all_right(rows) for rows in self.rows])
        asked = [row for rows in self.rows for row in rows if row.attribute == attribute]
        return share([bool(row.right) for row in asked if row.right is not None])

    def by_word(self, attribute: str) -> dict[str, Share]:
        """For each word asked for, how often it was read; events are compared place by place."""
        pairs: dict[str, list[bool]] = {}
        for rows in self.rows:
            row = next(r for r in rows if r.attribute == attribute)
            if row.asked is None:
                continue
            asked, read = row.asked.split(", then "), row.read.split(", then ")
            for i, word in enumerate(asked):
                pairs.setdefault(word, []).append(i < len(read) and read[i] == word)
        return {word: share(pairs[word]) for word in sorted(pairs)}


def generate_batch(
    backbone: Backbone,
    prompts: Sequence[str],
    seeds: Sequence[int],
    setup: Setup,
    images: Sequence[Tensor] = (),
    videos: Sequence[Tensor] = (),
    keep: str | None = None,
) -> Tensor:
    """A clip for each prompt in one batch: (B, T, H, W, 3) uint8.

    images: first frames (H, W, 3) uint8. videos: clips (T, H, W, 3) uint8, of which the frames `keep` stay.
    """
    from kinema.core.loop import sample
    from kinema.guidance.cfg import plain_guidance
    from kinema.pipeline import build_technique
    from kinema.request import Part, Request

    techniques = [build_technique(Part.parse(text)) for text in setup.techniques]
    if not any(t.overrides("guide") for t in techniques):
        techniques += plain_guidance(backbone.defaults, setup.guidance_scale)
    requests = [
        Request(
            prompt=text,
            seed=seed,
            num_inference_steps=setup.steps,
            guidance_scale=setup.guidance_scale,
            num_frames=setup.num_frames,
            height=setup.height,
            width=setup.width,
            image=clip_address(images[i][None].numpy()) if len(images) else None,
            video=clip_address(videos[i].numpy()) if len(videos) else None,
            keep=keep,
        )
        for i, (text, seed) in enumerate(zip(prompts, seeds, strict=True))
    ]
    return sample(backbone, requests, techniques)


def render(prompts: Sequence[Prompt], like: Tensor | None = None) -> Tensor:
    """The rendered clips of the prompts' scenes, (B, T, H, W, 3) uint8, in the size of the clips `like`."""
    specs = [p.spec for p in prompts]
    if like is not None:
        specs = [replace(s, height=like.shape[2], width=like.shape[3]) for s in specs]
    state, _ = simulate(specs)
    return render_frames(state)


def through_autoencoder(backbone: Backbone, frames: Tensor) -> Tensor | None:
    """Frames (B, T, H, W, 3) uint8 after encoding and decoding; None when the backbone cannot encode clips."""
    encode = getattr(backbone, "encode", None)
    if encode is None:
        return None
    video = frames.permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    return torch.cat([backbone.decode(encode(clip[None])) for clip in video])


def measure(backbone: Backbone, judge: Judge, prompts: Sequence[Prompt], setup: Setup) -> list[Result]:
    """What the judge reads from generated clips, rendered ones, and rendered ones after the autoencoder."""
    results = [Result("generated"), Result("rendered"), Result("through the autoencoder")]
    for start, part in batches(prompts, setup.batch, "clips"):
        seeds = [setup.seed + start + i for i in range(len(part))]
        made = generate_batch(backbone, [p.text for p in part], seeds, setup)
        drawn = render(part, made)
        for result, frames in zip(results, (made, drawn, through_autoencoder(backbone, drawn)), strict=True):
            if frames is not None:
                readings = judge.read_batch(list(frames))
                result.rows += [compare(p.asked, r) for p, r in zip(part, readings, strict=True)]
    return [result for result in results if result.rows]


def first_frames(backbone: Backbone, prompts: Sequence[Prompt], setup: Setup) -> list[float]:
    """Image to video: PSNR in dB of each clip's first frame against the rendered one it was given."""
    values: list[float] = []
    default = backbone.defaults
    size = torch.empty(1, 1, setup.height or default.height, setup.width or default.width)
    for start, part in batches(prompts, setup.batch, "clips from images"):
        given = render(part, size)[:, 0]
        seeds = [setup.seed + start + i for i in range(len(part))]
        made = generate_batch(backbone, [p.text for p in part], seeds, setup, list(given))
        values += decibels(made[:, 0], given).tolist()
    return values


def batches(prompts: Sequence[Prompt], size: int, what: str) -> Iterator[tuple[int, Sequence[Prompt]]]:
    """Parts of a list with the place of their first, and a line of progress on stderr."""
    begun = time.monotonic()
    for start in range(0, len(prompts), size):
        yield start, prompts[start : start + size]
        done = min(start + size, len(prompts))
        left = (time.monotonic() - begun) / done * (len(prompts) - done)
        print(f"\r{done} of {len(prompts)} {what}, {left:.0f} s left  ", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


def table(results: Sequence[Result], values: Sequence[float]) -> str:
    """The numbers as text."""
    lines = []
    for result in results:
        lines += ["", f"{result.name}, {len(result.rows)} clips", f"{'':8} {'bars':>9}  right   95% interval"]
        for name in (*ATTRIBUTES, "all"):
            bars = "/".join(f"{b:.0%}" if b else "-" for b in BARS[name]) if result is results[0] else ""
            lines.append(f"{name:8} {bars:>9}  {result.accuracy(name)}")
    for attribute in ("events", "camera"):
        lines += ["", f"generated, by {attribute}"]
        lines += [f"{word:14} {value}" for word, value in results[0].by_word(attribute).items()]
    if values:
        finite = sorted(values)
        lines += [
            "",
            f"image to video: first frame {sum(finite) / len(finite):.1f} dB on average, least {finite[0]:.1f}",
        ]
        lines[-1] += f", {len(finite)} clips (bar {FIRST_FRAME_BAR:.0f} dB)"
    return "\n".join(lines)


def to_dict(
    results: Sequence[Result], values: Sequence[float], prompts: Sequence[Prompt], setup: Setup
) -> dict[str, Any]:
    numbers = {
        r.name: {
            "accuracy": {name: r.accuracy(name).to_dict() for name in (*ATTRIBUTES, "all")},
            "by_event": {word: value.to_dict() for word, value in r.by_word("events").items()},
            "by_camera": {word: value.to_dict() for word, value in r.by_word("camera").items()},
        }
        for r in results
    }
    clips = [
        {"prompt": p.text, "seed": setup.seed + i, "rows": [row.to_dict() for row in rows]}
        for i, (p, rows) in enumerate(zip(prompts, results[0].rows, strict=True))
    ]
    return {"setup": asdict(setup), "bars": BARS, "results": numbers, "first_frame_psnr": list(values), "clips": clips}


def enter_in_card(folder: Path, numbers: dict[str, Any]) -> None:
    """Write the accuracies into the model's card.json, with the command that gives them."""
    setup = numbers["setup"]
    generated, values = numbers["results"]["generated"]["accuracy"], numbers["first_frame_psnr"]
    command = f"python -m kinema.claims.adherence --prompts {len(numbers['clips'])} --seed {setup['seed']}"
    enter_scores(folder, "adherence", {"command": command, **generated})
    if values:
        enter_scores(folder, "first_frame_psnr", round(sum(values) / len(values), 2))


def enter_scores(folder: Path, name: str, scores: Any) -> None:
    """Write one entry of the scores in a model's card.json."""
    path = folder / "card.json"
    card = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    card["scores"] = {**card.get("scores", {}), name: scores}
    write_text(path, json.dumps(card, indent=2) + "\n")


def write_list(count: int = 200) -> Path:
    """Draw the fixed list of prompts anew. Captions that leave something out ask for less."""
    specs = [sample_spec(LIST_SEED + i, "first", "held_out") for i in range(count)]
    return write_prompts("adherence", [Prompt(text=caption(s, s.seed), spec=s) for s in specs])


def main(
    prompts: Annotated[int, typer.Option(min=1, help="Prompts, from the start of the list.")] = 200,
    seed: Annotated[int, typer.Option(help="Clip i is made with seed + i.")] = 7,
    model: Annotated[str, typer.Option(help="An embedded model, a folder, or a hub id.")] = "mini",
    steps: Annotated[int | None, typer.Option(help="Solver steps; default: the model's own.")] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="Default: the model's own.")] = None,
    technique: Annotated[
        list[str] | None, typer.Option(metavar="NAME[:FIELD=VALUE,...]", help="Techniques of the clips; repeatable.")
    ] = None,
    images: Annotated[int, typer.Option(min=0, help="Clips made from a first frame, too.")] = 32,
    batch: Annotated[int, typer.Option(min=1, help="Clips made together.")] = 8,
    device: Annotated[str | None, typer.Option(help="Default: the fastest there is.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Default: what suits the device.")] = None,
    judge: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Another judge than kinema's own.")] = None,
    as_json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the numbers there.")] = None,
    card: Annotated[bool, typer.Option(help="Write the numbers into the model's card.json.")] = False,
) -> None:
    """Measure how well a model follows prompts whose combinations it has never seen."""
    from kinema.backbones.load import load

    if card and technique:
        raise typer.BadParameter("the scores in a card are those of the model alone; leave --technique or --card out")
    setup = Setup(
        model=model,
        seed=seed,
        steps=steps,
        guidance_scale=guidance_scale,
        batch=batch,
        device=device,
        dtype=dtype,
        techniques=tuple(technique or ()),
    )
    chosen = read_prompts("adherence", prompts)
    reader = Judge.load(judge)
    backbone = load(model, device, dtype)
    results = measure(backbone, reader, chosen, setup)
    values = first_frames(backbone, chosen[:images], setup) if images else []
    print(table(results, values))
    numbers = to_dict(results, values, chosen, setup)
    if as_json is not None:
        write_text(as_json, json.dumps(numbers, indent=1) + "\n")
    if card:
        enter_in_card(backbone.folder.path, numbers)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    typer.run(main)
