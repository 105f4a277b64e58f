"""How near are generated clips to the world, and are they copies of the clips that were trained on?

    python -m kinema.claims.training_data --model mini --clips 200
    python -m kinema.claims.training_data --model RUN/early --model RUN/late --clips 200 --sheet closest.png

Distance: the Frechet distance, in features of kinema's judge, between generated clips and 1,000 rendered clips of
scenes kept out of all training. Its estimate is too large by an amount that falls with the number of clips, so every
model makes the same number, of the same scenes, with the same seeds; the rendered clips of those very scenes give the
floor, and the same after the model's autoencoder the part that is the autoencoder's. The interval: clips of both sets
are drawn anew with replacement, and the middle 95% of the distances, moved so that their mean is the measured one (a
set drawn from a set is further away by the same bias once more), say how much it varies with the clips.

Copies: for each generated clip the nearest training clip, in features of the judge (Euclidean) and in pixels (root
mean square, 13 frames of 16x16, in levels of 0..255), beside the nearest training clip of the rendered clip of the
same prompt, which cannot be a copy. Rendered clips go through the autoencoder first, since generated ones come out of
it. A model that copies is much nearer than they are. Features near 0 alone are no copy: two clips of one thing doing
one thing are alike to the judge.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor

from kinema.claims import options
from kinema.claims.adherence import LIST_SEED, Setup, batches, enter_scores, generate_batch, render, through_autoencoder
from kinema.claims.statistics import Share, share
from kinema.core.errors import KinemaError
from kinema.files import replacing, write_text
from kinema.metrics.distribution.frechet import frechet_distance
from kinema.metrics.judge import Judge, look
from kinema.metrics.moments import Moments
from kinema.metrics.neighbours import squared_distances
from kinema.video import rows_sheet
from kinema.world.caption import caption
from kinema.world.prompts import Prompt
from kinema.world.sample import Split, sample_spec

if TYPE_CHECKING:
    from kinema.backbones.protocol import Backbone

REFERENCE_SEED = LIST_SEED + 1_000_000  # scenes of the reference, from here on; prompts begin at LIST_SEED
DRAWS = 200  # of the bootstrap
FRAMES, EDGE = 13, 16  # of the pixels that are compared
CLOSEST = 5  # pairs on the sheet
PERCENTILE = 1.0  # of the held-out distances


@dataclass(eq=False)
class Seen:
    """What is kept of a set of N clips."""

    features: np.ndarray  # (N, D) of the judge
    pixels: np.ndarray  # (N, P) levels 0..255, of small pictures

    @classmethod
    def of(cls, clips: Sequence[Any], judge: Judge) -> Seen:
        small = torch.stack([look(clip, EDGE, FRAMES) for clip in clips]).flatten(1) * 255
        return cls(judge.features(clips).double().numpy(), small.numpy())

    @classmethod
    def joined(cls, parts: Sequence[Seen]) -> Seen:
        return cls(np.concatenate([p.features for p in parts]), np.concatenate([p.pixels for p in parts]))


@dataclass(frozen=True)
class Distance:
    """A Frechet distance with its interval."""

    value: float
    interval: tuple[float, float]

    def __str__(self) -> str:
        return f"{self.value:8.3f}  [{self.interval[0]:.3f}, {self.interval[1]:.3f}]"


def distance(made: np.ndarray, reference: np.ndarray, draws: int = DRAWS, seed: int = 0) -> Distance:
    """Of rows (M, D) and (N, D): the head of this file says how the interval is made."""
    value = frechet_distance(Moments.of(made), Moments.of(reference))
    rng = np.random.default_rng(seed)

    def drawn(rows: np.ndarray) -> Moments:
        return Moments.of(rows[rng.integers(0, len(rows), len(rows))])

    found = np.array([frechet_distance(drawn(made), drawn(reference)) for _ in range(draws)])
    low, high = np.quantile(found - found.mean() + value, (0.025, 0.975))
    return Distance(value, (float(low), float(high)))


@dataclass(eq=False)
class Copies:
    """Distances of clips to their nearest training clips."""

    made: np.ndarray  # (N,)
    held_out: np.ndarray  # (N,) of the rendered clips of the same prompts
    which: np.ndarray  # (N,) nearest training clip of each made one

    @property
    def ratio(self) -> float:
        """Median of the made clips over that of the held-out ones."""
        return float(np.median(self.made) / np.median(self.held_out))

    @property
    def close(self) -> Share:
        """Made clips nearer than the first percentile of the held-out ones; about 1% of a model that does not copy."""
        return share((self.made < np.percentile(self.held_out, PERCENTILE)).tolist())

    def to_dict(self) -> dict[str, Any]:
        medians = {"median_made": float(np.median(self.made)), "median_held_out": float(np.median(self.held_out))}
        return {**medians, "ratio": self.ratio, "closer_than_1st_percentile": self.close.to_dict()}


def copies(made: np.ndarray, held_out: np.ndarray, training: np.ndarray, scale: float = 1.0) -> Copies:
    """Nearest neighbours among the rows of training clips; distances are Euclidean, times `scale`."""
    (near, which), (apart, _) = nearest(made, training), nearest(held_out, training)
    return Copies(near * scale, apart * scale, which)


def nearest(rows: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Euclidean distance of each row (M, D) to its nearest of others (N, D), (M,), and which that is."""
    found = [(part.min(1), part.argmin(1)) for part in squared_distances(rows, others)]
    return np.sqrt(np.concatenate([low for low, _ in found])), np.concatenate([at for _, at in found])


def scenes(count: int, first: int, split: Split = "held_out") -> list[Prompt]:
    """Scenes of consecutive seeds with their captions."""
    specs = [sample_spec(seed, "first", split) for seed in range(first, first + count)]
    return [Prompt(text=caption(spec, spec.seed), spec=spec) for spec in specs]


class TrainingClips:
    """The clips that a model was trained on: rendered anew from the seeds in its card, or decoded from a cache."""

    def __init__(self, backbone: Backbone, count: int, cache: Path | None = None) -> None:
        self.backbone, self.cache = backbone, None
        if cache is not None:
            from kinema.training.latents import LatentCache

            self.cache = LatentCache(cache)
            there = range(len(self.cache))
        else:
            there = range(*_seeds(backbone))
        if not 1 <= count <= len(there):
            raise KinemaError(
                f"{count} training clips are asked for, and there are {len(there)}; use 1 to {len(there)}"
            )
        self.which = [there[i * len(there) // count] for i in range(count)]  # evenly over all of them

    def frames(self, places: Sequence[int], like: Tensor | None = None) -> Tensor:
        """Clips (B, T, H, W, 3) uint8 by their places in `which`, in the size of the clips `like`."""
        chosen = [self.which[i] for i in places]
        if self.cache is not None:
            latents = self.cache.latents(chosen, self.cache.shards[0].shape[2])
            return self.backbone.decode(latents.to(self.backbone.device)).cpu()
        return render([prompt for i in chosen for prompt in scenes(1, i, "train")], like)

    def batches(self, size: int, like: Tensor | None) -> Iterator[Tensor]:
        for _, part in batches(range(len(self.which)), size, "training clips"):
            yield self.frames(part, like)


def _seeds(backbone: Backbone) -> tuple[int, int]:
    """First seed of the training clips, and the one behind the last."""
    seeds = backbone.folder.card.get("data", {}).get("seeds")
    if not (isinstance(seeds, list) and len(seeds) == 2 and all(isinstance(s, int) for s in seeds)):
        raise KinemaError(
            f"card.json of model {backbone.name!r} does not say which seeds it was trained on; give a cache of latents"
        )
    return seeds[0], seeds[1]


@dataclass(eq=False)
class Result:
    """Everything measured of one model."""

    model: str
    steps: int | None  # of its training, as its card says
    made: Distance
    coded: Distance  # rendered clips of the same prompts, after the autoencoder
    copies: dict[str, Copies] = field(default_factory=dict)  # by "features" and "pixels"

    def to_dict(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "steps": self.steps,
            "frechet": {"made": asdict(self.made), "through_autoencoder": asdict(self.coded)},
            "copies": {name: found.to_dict() for name, found in self.copies.items()},
        }


def seen(prompts: Sequence[Prompt], judge: Judge, size: int, like: Tensor | None = None) -> Seen:
    """Rendered clips."""
    return Seen.joined(
        [Seen.of(list(render(part, like)), judge) for _, part in batches(prompts, size, "rendered clips")]
    )


def measure(
    backbone: Backbone,
    judge: Judge,
    prompts: Sequence[Prompt],
    reference: np.ndarray,
    setup: Setup,
    training: TrainingClips | None,
) -> tuple[Result, list[tuple[float, Tensor, Tensor]]]:
    """Numbers of one model, and its closest pairs: distance in features, generated and training clip."""
    made, coded, clips = [], [], []
    for start, part in batches(prompts, setup.batch, "clips"):
        frames = generate_batch(
            backbone, [p.text for p in part], [setup.seed + start + i for i in range(len(part))], setup
        )
        made.append(Seen.of(list(frames), judge))
        coded.append(Seen.of(list(through_autoencoder(backbone, render(part, frames))), judge))
        clips += list(frames)
    ours, held_out = Seen.joined(made), Seen.joined(coded)
    card = backbone.folder.card.get("training", {})
    distances = distance(ours.features, reference), distance(held_out.features, reference)
    result = Result(setup.model, card.get("steps"), *distances)
    if training is None:
        return result, []
    of = Seen.joined([Seen.of(list(frames), judge) for frames in training.batches(setup.batch, clips[0][None])])
    found = result.copies["features"] = copies(ours.features, held_out.features, of.features)
    per_pixel = of.pixels.shape[1] ** -0.5  # a sum of squares becomes their mean
    result.copies["pixels"] = copies(ours.pixels, held_out.pixels, of.pixels, per_pixel)
    first = np.argsort(found.made)[:CLOSEST].tolist()
    theirs = training.frames([int(found.which[i]) for i in first], clips[0][None])
    return result, [(float(found.made[i]), clips[i], pair) for i, pair in zip(first, theirs, strict=True)]


def draw(path: Path, pairs: Sequence[tuple[float, Tensor, Tensor]]) -> None:
    """A PNG with the closest pairs, the generated clip above the training clip."""
    clips = [clip.numpy() for _, made, other in pairs for clip in (made, other)]
    labels = [
        f"{i + 1}: {what}, {apart:.2f} apart" for i, (apart, *_) in enumerate(pairs) for what in ("made", "trained on")
    ]
    with replacing(path) as temporary:
        rows_sheet(clips, labels, columns=7).save(temporary)


def table(floor: Distance, results: Sequence[Result], count: int, reference: int) -> str:
    """The numbers as text."""
    lines = [f"Frechet distance of {count} clips to {reference} held-out clips, world features, 95% interval"]
    lines.append(f"{'rendered clips, the floor':44}{floor}")
    for r in results:
        steps = "" if r.steps is None else f", {r.steps} steps"
        lines.append(f"{r.model + steps:44}{r.made}")
        lines.append(f"{'  rendered, through its autoencoder':44}{r.coded}")
    for r in results:
        for name, found in r.copies.items():
            medians = f"{np.median(found.made):.3f} against {np.median(found.held_out):.3f} of held-out clips"
            lines += ["", f"{r.model}: nearest training clip in {name}, median {medians}, ratio {found.ratio:.2f}"]
            lines.append(f"  closer than the 1st percentile of held-out clips: {found.close}")
    return "\n".join(lines)


def main(
    model: Annotated[list[str] | None, typer.Option(help="Embedded model, folder or hub id; repeatable.")] = None,
    clips: Annotated[int, typer.Option(min=2, help="Clips of each model.")] = 200,
    reference: Annotated[int, typer.Option(min=2, help="Held-out clips they are compared with.")] = 1000,
    train: Annotated[
        int, typer.Option(min=0, help="Training clips looked through for copies; 0 leaves that out.")
    ] = 2000,
    cache: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Latents of them, not to render anew.")] = None,
    sheet: Annotated[Path | None, typer.Option(metavar="PNG", help="The closest pairs of the last model.")] = None,
    seed: options.Seed = 7,
    steps: options.Steps = None,
    guidance_scale: options.GuidanceScale = None,
    batch: options.Batch = 8,
    device: options.Device = None,
    dtype: options.Dtype = None,
    as_json: options.AsJson = None,
    card: options.Card = False,
) -> None:
    """Measure how near models come to the world, and that they do not copy."""
    from kinema.backbones.load import load

    judge = Judge.load()
    prompts = scenes(clips, LIST_SEED)
    held = seen(scenes(reference, REFERENCE_SEED), judge, batch).features
    floor = distance(seen(prompts, judge, batch).features, held)
    setup = Setup(seed=seed, steps=steps, guidance_scale=guidance_scale, batch=batch, device=device, dtype=dtype)
    results = []
    for name in model or ["mini"]:
        backbone = load(name, device, dtype)
        training = TrainingClips(backbone, train, cache) if train else None
        result, pairs = measure(backbone, judge, prompts, held, replace(setup, model=name), training)
        results.append(result)
        if card:
            own = replace(setup, model=name)
            told = {"command": own.command("training_data", clips=clips, reference=reference, train=train)}
            enter_scores(backbone.folder.path, "training_data", {**told, "floor": asdict(floor), **result.to_dict()})
    print(table(floor, results, clips, reference))
    if sheet is not None and pairs:
        draw(sheet, pairs)
    if as_json is not None:
        numbers = {"setup": asdict(setup), "floor": asdict(floor), "models": [r.to_dict() for r in results]}
        write_text(as_json, json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    typer.run(main)
