"""In which blocks of a model the camera can be read: a linear probe, which tells an adapter where to stop.

    python -m kinema.claims.pose_probe --model mini

AC3D, 2024, arXiv:2411.18673, section 4.2: a ridge regression from the features behind each block to the camera of the
clip, at several noise levels. Where poses become readable the model has decided on them, so that what steers the camera
belongs in no later blocks. Features of a latent frame are averaged over a grid of 2x2 areas; a pose is the rotation
vector, the place in metres and the log of the focal length, each relative to the first frame. Told is the share of
their variance on held-out clips that is explained, R^2, mean over the numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor

from kinema.backbones import watched
from kinema.backbones.load import load
from kinema.claims import options
from kinema.core.attention import Taps, current_taps
from kinema.core.features import Inside, Place
from kinema.core.footage import as_video
from kinema.core.path import RectifiedFlow
from kinema.core.technique import Step, Technique
from kinema.layers.branch import fitted
from kinema.training.denoising import Predictor
from kinema.world.caption import caption
from kinema.world.curricula import get_curriculum
from kinema.world.motion import simulate
from kinema.world.render import render_frames
from kinema.world.sample import sample_spec

LEVELS = (0.95, 0.8, 0.6)  # noise levels
FIRST_SEED = 5_000_000_000
BATCH = 8
COMPONENTS = 48  # principal components of the features
RIDGE = 1.0  # of their mean variance


@dataclass(frozen=True, kw_only=True)
class Listening(Technique):
    """Keeps what passes behind every block: in `run.state`, block -> (B, T, areas, D)."""

    def features(self, step: Step, place: Place, h: Tensor, inside: Inside) -> Tensor:
        areas = fitted(h.float(), place.tokens, (place.tokens[0], 2, 2))
        run: Any = step.run
        run.heard[place.block] = areas.reshape(len(h), place.tokens[0], 4, -1)
        return h


class Heard:
    """Stands for the run of a `Listening`."""

    def __init__(self) -> None:
        self.heard: dict[int, Tensor] = {}
        self.conditions: Any = None


@contextmanager
def listening(level: float, conditions: Any) -> Iterator[tuple[Taps, Heard]]:
    run: Any = Heard()
    run.conditions = conditions
    taps = Taps(Step(index=0, count=1, t=level, t_next=0.0, run=run), [Listening()])
    token = current_taps.set(taps)
    try:
        yield taps, run
    finally:
        current_taps.reset(token)


def poses(world_to_camera: Tensor, intrinsics: Tensor, frames: int) -> Tensor:
    """(B, F, 4, 4) and (B, F, 3, 3) -> (B, T, 7) at the last frame of each latent frame, relative to the first."""
    at = torch.linspace(0, world_to_camera.shape[1] - 1, frames).round().long()
    own = (world_to_camera @ torch.linalg.inv(world_to_camera[:, :1])).double()[:, at]
    turn = own[..., :3, :3]
    skew = (turn - turn.mT) / 2  # for the moderate turns of the world, sin(angle) times the axis
    rotation = torch.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], -1)
    centre = -(turn.mT @ own[..., :3, 3:])[..., 0]
    zoom = (intrinsics[:, at, 0, 0] / intrinsics[:, :1, 0, 0]).double().log()
    return torch.cat([rotation, centre, zoom[..., None]], -1)


@torch.no_grad()
def read(backbone: Any, clips: int, levels: tuple[float, ...] = LEVELS) -> tuple[dict[Any, Tensor], Tensor]:
    """(level, block) -> features (N, T, areas D) of clips with moving cameras, and their poses (N, T, 7)."""
    d, path, predictor = backbone.defaults, RectifiedFlow(), Predictor(backbone)
    part = replace(
        get_curriculum("cameras"),
        num_frames=d.num_frames,
        height=d.height,
        width=d.width,
        fps=d.fps,
        still_probability=0.0,
    )
    found: dict[Any, list[Tensor]] = {}
    told: list[Tensor] = []
    for first in range(0, clips, BATCH):
        specs = [sample_spec(FIRST_SEED + i, part) for i in range(first, min(first + BATCH, clips))]
        state, _ = simulate(specs)
        x0 = backbone.encode(as_video(render_frames(state)))
        conditions = predictor.of_shape(x0)
        words = backbone.encode_texts([caption(spec, spec.seed) for spec in specs], conditions)
        noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(first))
        for level in levels:
            with listening(level, conditions) as (taps, run):
                inputs = {**backbone.inputs(conditions, frozenset()), **words}
                x = path.add_noise(x0, noise, level)
                watched.velocity(backbone, taps, x, level, inputs, conditions, [frozenset()])
            for block, h in run.heard.items():
                found.setdefault((level, block), []).append(h.flatten(2).cpu())
        frames = next(iter(run.heard.values())).shape[1]  # a token may be of several latent frames
        told.append(poses(state.world_to_camera, state.intrinsics, frames))
    return {key: torch.cat(parts) for key, parts in found.items()}, torch.cat(told)


def explained(features: Tensor, told: Tensor, train: float = 0.75) -> float:
    """R^2 of a ridge regression on clips that it has not seen, (N, T, D) to (N, T, 7); the first frame is left out.

    It sees the principal components of a frame's features and of the first frame's.
    """
    cut = int(train * len(features))
    flat = features[:cut].flatten(0, 1).double()
    mean = flat.mean(0)
    _, _, main = torch.linalg.svd(flat - mean, full_matrices=False)
    seen = (features.double() - mean) @ main[:COMPONENTS].mT
    seen = torch.cat([seen[:, 1:], seen[:, :1].expand(-1, seen.shape[1] - 1, -1)], -1)
    a, b, y, z = (u.flatten(0, 1) for u in (seen[:cut], seen[cut:], told[:cut, 1:], told[cut:, 1:]))
    middle, origin = y.mean(0), a.mean(0)
    a, b = a - origin, b - origin
    gram = a.mT @ a
    weights = torch.linalg.solve(gram + RIDGE * gram.diagonal().mean() * torch.eye(len(gram)), a.mT @ (y - middle))
    off, whole = (z - middle - b @ weights).square().sum(0), (z - middle).square().sum(0)
    return float((1 - off / whole.clamp_min(1e-12)).mean())


def table(found: dict[Any, Tensor], told: Tensor) -> np.ndarray:
    """(levels, blocks) R^2."""
    levels, blocks = sorted({level for level, _ in found}, reverse=True), sorted({block for _, block in found})
    return np.array([[explained(found[level, block], told) for block in blocks] for level in levels])


def readable(scores: np.ndarray) -> int:
    """The first block behind which the camera is read nearly (95%) as well as anywhere, in the mean of the levels."""
    mean = scores.mean(0)
    return int(np.argmax(mean >= 0.95 * mean.max()))


def main(
    model: options.Model = "mini",
    clips: Annotated[int, typer.Option(min=20, help="Rendered clips; a quarter of them is held out.")] = 640,
) -> None:
    """Print in which blocks of a model its camera can be read, at several noise levels."""
    backbone = load(model, dtype="float32")
    with backbone.tapped(True):
        found, told = read(backbone, clips)
    scores = table(found, told)
    print(f"{model}: R^2 of the camera behind each block, {clips} clips")
    print("noise level  " + "".join(f"{block:>7}" for block in range(scores.shape[1])))
    for level, row in zip(sorted({level for level, _ in found}, reverse=True), scores, strict=True):
        print(f"{level:<13g}" + "".join(f"{score:7.2f}" for score in row))
    if scores.max() <= 0:
        print("nothing can be read; use more clips")
        raise typer.Exit(1)
    block = readable(scores)
    print(f"readable behind block {block}: steer it ahead of that, adapter.network.blocks={list(range(max(block, 1)))}")


if __name__ == "__main__":
    typer.run(main)
