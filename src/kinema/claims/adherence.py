"""Does the model show what the prompt asks for? Read by the judge on combinations never rendered in training.

    python -m kinema.claims.adherence --prompts 200 --seed 7
    python -m kinema.claims.adherence --prompts 200 --seed 7 --technique sea_cache

The prompts are a fixed list (`world/prompts`) of scenes whose combination of kind, colour and ground was
kept out of all training. Beside the generated clips the judge reads the rendered clips of the same scenes, and
these after a pass through the model's autoencoder: what it reads wrongly there is its own mistake, not the model's.
Image to video: the rendered first frame is given, and the first frame of the video is compared with it.

    python -m kinema.claims.adherence --objects 2 --prompts 200 --seed 7

asks for scenes of two things of different colours (`world/prompts/two_objects.jsonl`), which are seen apart in the
rendered clips. The judge has learned clips of one, so `metrics/several.py` reads these; what it reads of the rendered
clips is printed beside, as above. "objects" is right where kind and colour of both belong together.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import torch
import typer
from torch import Tensor

from kinema.claims import options
from kinema.claims.statistics import Share, share
from kinema.core.footage import as_video
from kinema.files import write_text
from kinema.metrics.agreement import ATTRIBUTES, Row, all_right, compare
from kinema.metrics.control.psnr import decibels
from kinema.metrics.extractors.world import World
from kinema.metrics.judge import Judge, Reading
from kinema.metrics.several import SeveralReader
from kinema.video import clip_address
from kinema.world.caption import caption
from kinema.world.curricula import CURRICULA
from kinema.world.motion import simulate
from kinema.world.prompts import Prompt, read_prompts, write_prompts
from kinema.world.render import render as world_render
from kinema.world.render import render_frames
from kinema.world.sample import sample_spec

if TYPE_CHECKING:
    from kinema.backbones.protocol import Backbone

T = TypeVar("T")
# Aims for a model trained on a CPU alone and for one trained on a GPU, shares of the prompts.
BARS: dict[str, tuple[float | None, float | None]] = {
    "kind": (0.88, 0.97),
    "colour": (0.95, 0.97),
    "ground": (0.95, 0.97),
    "sky": (None, None),
    "events": (0.75, 0.92),
    "camera": (0.75, 0.92),
    "all": (0.785, 0.8),
}
TWO_BARS: dict[str, tuple[float | None, float | None]] = {"objects": (None, 0.6)}
LISTS = {1: "adherence", 2: "two_objects"}  # by the number of things
FIRST_FRAME_BAR = 28.0  # dB
LIST_SEED = 3_000_000_000  # the scenes of the lists were drawn with seeds from here on
SEEN = 0.006  # of the picture: a thing that is smaller in a frame is not seen in it


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

    def command(self, claim: str, **options: Any) -> str:
        """The command that gives the same numbers: `options` of the claim and what differs from the model's own.

        A model in a folder is called MODEL: where it lies is nobody's business.
        """
        told = {**options, "seed": self.seed, "steps": self.steps, "guidance-scale": self.guidance_scale}
        told |= {"num-frames": self.num_frames, "height": self.height, "width": self.width}
        words = [f"--{name} {value}" for name, value in told.items() if value is not None]
        words += [f"--technique {text}" for text in self.techniques]
        model = "MODEL" if Path(self.model).is_dir() else self.model
        return " ".join([f"python -m kinema.claims.{claim} --model {model}", *words])


@dataclass
class Result:
    """What was read from clips of the prompts, in their order."""

    name: str
    rows: list[list[Row]] = field(default_factory=list)

    @property
    def attributes(self) -> tuple[str, ...]:
        """What accuracies there are, "all" the last."""
        return (*dict.fromkeys((*ATTRIBUTES, *(row.attribute for rows in self.rows for row in rows))), "all")

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


def through_autoencoder(backbone: Backbone, frames: Tensor) -> Tensor:
    """Frames (B, T, H, W, 3) uint8 after encoding and decoding."""
    video = as_video(frames)
    return torch.cat([backbone.decode(backbone.encode(clip[None])) for clip in video])


def judged(prompt: Prompt, reading: Reading) -> list[Row]:
    """Rows of all attributes; of several things one more, whether kind and colour of each belong together."""
    asked = prompt.asked
    rows = compare(asked, reading)
    if len(asked.objects) > 1:
        wanted = sorted(f"{o.colour} {o.kind}" for o in asked.objects)
        found = sorted(f"{o.colour.word} {o.kind.word}" for o in reading.objects)
        sure = min((min(o.kind.confidence, o.colour.confidence) for o in reading.objects), default=0.0)
        said, read = " + ".join(wanted), " + ".join(found) or "none"
        rows.append(Row(attribute="objects", asked=said, read=read, confidence=sure, right=wanted == found))
    return rows


def measure(backbone: Backbone, judge: Judge | SeveralReader, prompts: Sequence[Prompt], setup: Setup) -> list[Result]:
    """What the judge reads from generated clips, rendered ones, and rendered ones after the autoencoder."""
    results = [Result("generated"), Result("rendered"), Result("through the autoencoder")]
    for start, part in batches(prompts, setup.batch, "clips"):
        seeds = [setup.seed + start + i for i in range(len(part))]
        made = generate_batch(backbone, [p.text for p in part], seeds, setup)
        drawn = render(part, made)
        for result, frames in zip(results, (made, drawn, through_autoencoder(backbone, drawn)), strict=True):
            readings = judge.read_batch(list(frames))
            result.rows += [judged(p, r) for p, r in zip(part, readings, strict=True)]
    return results


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


def batches(prompts: Sequence[T], size: int, what: str) -> Iterator[tuple[int, Sequence[T]]]:
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
        every = TWO_BARS if "objects" in result.attributes else BARS
        for name in result.attributes:
            known = every.get(name, (None, None))
            bars = "/".join(f"{b:.0%}" if b else "-" for b in known) if result is results[0] else ""
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
            "accuracy": {name: r.accuracy(name).to_dict() for name in r.attributes},
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
    two = "objects" in generated
    command = Setup(**setup).command("adherence", objects=2 if two else None, prompts=len(numbers["clips"]))
    enter_scores(folder, "two_objects" if two else "adherence", {"command": command, **generated})
    if values:
        enter_scores(folder, "first_frame_psnr", round(sum(values) / len(values), 2))


def enter_scores(folder: Path, name: str, scores: Any) -> None:
    """Write one entry of the scores in a model's card.json."""
    path = folder / "card.json"
    card = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    card["scores"] = {**card.get("scores", {}), name: scores}
    write_text(path, json.dumps(card, indent=2) + "\n")


def write_list(count: int = 200, objects: int = 1) -> Path:
    """Draw a fixed list of prompts anew. Captions that leave something out ask for less."""
    curriculum = CURRICULA["first"] if objects == 1 else replace(CURRICULA["first"], object_weights=(0.0, 1.0))
    found: list[Prompt] = []
    for seed in itertools.count(LIST_SEED):
        spec = sample_spec(seed, curriculum, "held_out")
        prompt = Prompt(text=caption(spec, seed), spec=spec)
        if objects == 1 or apart(prompt):
            found.append(prompt)
        if len(found) == count:
            return write_prompts(LISTS[objects], found)
    raise AssertionError("seeds do not end")


def apart(prompt: Prompt) -> bool:
    """Whether a scene has two things of different colours that its caption names, seen apart in half of its frames."""
    things = [(o.kind, o.colour) for o in prompt.spec.objects]
    if len(things) != 2 or things[0][1] == things[1][1]:
        return False
    if sorted(things) != sorted((o.kind or "", o.colour or "") for o in prompt.asked.objects):
        return False
    state, _ = simulate([replace(prompt.spec, height=64, width=64)])
    mask = world_render(state).mask[0]
    one, other = (torch.stack([m == i + 1 for m in mask]).float()[:, None] for i in range(2))
    near = torch.nn.functional.max_pool2d(one, 3, stride=1, padding=1) * other
    seen = (one.mean((1, 2, 3)) > SEEN) & (other.mean((1, 2, 3)) > SEEN) & (near.amax((1, 2, 3)) == 0)
    return bool(seen.float().mean() >= 0.5)


def main(
    prompts: Annotated[int, typer.Option(min=1, help="Prompts, from the start of the list.")] = 200,
    objects: Annotated[int, typer.Option(min=1, max=2, help="Things in each scene.")] = 1,
    seed: options.Seed = 7,
    model: options.Model = "mini",
    steps: options.Steps = None,
    guidance_scale: options.GuidanceScale = None,
    technique: Annotated[
        list[str] | None, typer.Option(metavar="NAME[:FIELD=VALUE,...]", help="Techniques of the clips; repeatable.")
    ] = None,
    images: Annotated[int, typer.Option(min=0, help="Clips made from a first frame, too.")] = 32,
    batch: options.Batch = 8,
    device: options.Device = None,
    dtype: options.Dtype = None,
    judge: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Another judge than kinema's own.")] = None,
    as_json: options.AsJson = None,
    card: options.Card = False,
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
    chosen = read_prompts(LISTS[objects], prompts)
    reader: Judge | SeveralReader = Judge.load(judge)
    if objects > 1:
        if judge is not None:
            raise typer.BadParameter("several things are read with kinema's own networks; leave --judge out")
        reader, images = SeveralReader(World(""), objects), 0
    backbone = load(model, device, dtype)
    results = measure(backbone, reader, chosen, setup)
    # A model that takes no image is measured on text alone, and the table has no line for it.
    values = first_frames(backbone, chosen[:images], setup) if images and backbone.takes_image else []
    print(table(results, values))
    numbers = to_dict(results, values, chosen, setup)
    if as_json is not None:
        write_text(as_json, json.dumps(numbers, indent=1) + "\n")
    if card:
        enter_in_card(backbone.folder.path, numbers)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    typer.run(main)
