"""How well kinema's camera reader reads rendered clips it has never seen, and what an autoencoder leaves of them.

    python -m kinema.claims.camera_reader --count 200

Clips of 25 frames at 128x128 of curriculum "cameras", the first object of a combination that was kept out of all
training: as they are rendered, after the autoencoder of `mini`, after it with noise on their latents, as `mini` paints
them anew (`training.painting`), and the same where its caption tells of the camera of another clip: a reader that had
learned from painted clips what a caption does, and not what is seen, would read that one. Errors are
means over the frames of a clip, of the rotation in degrees and of the eye's place in heights of the first camera, as
`pose_errors` has them. Beside the reader stand what can be followed over the ground (`metrics.camera`), which is told
the focal length of the first frame, and the answer that nothing ever moves.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor

from kinema.claims import options
from kinema.claims.cards import WEIGHTS, write_measured
from kinema.core.footage import as_video
from kinema.files import write_text
from kinema.metrics.camera import camera_path, pose_errors
from kinema.metrics.camera_reader import CameraReader, numbers_of, poses_of
from kinema.metrics.viewing import Viewing
from kinema.training.denoising import Predictor
from kinema.training.judge import TEST_SEED
from kinema.training.painting import Painter
from kinema.world.cameras import path_of
from kinema.world.motion import simulate
from kinema.world.render import render_frames
from kinema.world.sample import sample_spec
from kinema.world.spec import SceneSpec

CURRICULUM = "cameras"
# Ways in which a clip is shown.
SEEN = ("rendered", "decoded", "decoded, noise 0.2", "painted anew", "told of another camera")
NOISE = 0.2  # of the latents, which have a standard deviation of 1
BARS = {"turned": 2.0, "orbit": 7.0}  # mean degrees in what is decoded: of all clips, and of those with an orbit
BATCH = 10

Read = Callable[[Viewing, np.ndarray], np.ndarray | None]  # a clip and true focal lengths (T,) -> poses (T, 4, 4)


def scenes(count: int, seed: int) -> list[SceneSpec]:
    return [sample_spec(seed + i, CURRICULUM, "held_out") for i in range(count)]


def shown(specs: list[SceneSpec], backbone: Any, seed: int) -> Iterator[tuple[SceneSpec, dict[str, np.ndarray]]]:
    """Each scene with its frames (T, H, W, 3) uint8 in all ways of `SEEN`."""
    generator, paint = torch.Generator().manual_seed(seed), Painter(Predictor(backbone))
    chance = torch.Generator().manual_seed(seed + 1)
    for first in range(0, len(specs), BATCH):
        some = specs[first : first + BATCH]
        frames = render_frames(simulate(some)[0])
        z = backbone.encode(as_video(frames))
        noisy = z + NOISE * torch.randn(z.shape, generator=generator)
        others = [dataclasses.replace(a, camera=b.camera) for a, b in zip(some, some[1:] + some[:1], strict=True)]
        latents = (z, noisy, *(paint(z, told, chance) for told in (some, others)))
        ways: tuple[Tensor, ...] = (frames, *(backbone.decode(each) for each in latents))
        for i, spec in enumerate(some):
            yield spec, {name: way[i].numpy() for name, way in zip(SEEN, ways, strict=True)}


def moves_of(spec: SceneSpec) -> list[str]:
    """The words of what the camera of a scene does; "still" for nothing."""
    named = [] if spec.camera.move == "still" else [spec.camera.move]
    return sorted({name.split()[0] for name in (*named, *(leg.move for leg in spec.camera.legs))}) or ["still"]


def truth(spec: SceneSpec) -> tuple[np.ndarray, np.ndarray]:
    """Poses (T, 4, 4) in heights of the first camera, and focal lengths (T,) in pixels."""
    from kinema.core.camera import FOCAL

    zoomed, poses = (u.numpy() for u in path_of(spec.camera, spec.num_frames))
    return poses_of(numbers_of(poses, zoomed)), FOCAL * spec.height * zoomed


def followed(clip: Viewing, focal: np.ndarray) -> np.ndarray | None:
    """By what can be followed over the ground."""
    path = camera_path(clip, float(focal[0]))
    return None if path is None else path.world_to_camera


def unmoved(clip: Viewing, focal: np.ndarray) -> np.ndarray:
    return np.tile(np.eye(4), (len(clip), 1, 1))


def rows_of(spec: SceneSpec, clips: dict[str, np.ndarray], readers: dict[str, Read]) -> list[dict[str, Any]]:
    """Errors of each reader in each way of showing a clip; NaN where one says nothing."""
    true, focal = truth(spec)
    rows = []
    for way, frames in clips.items():
        clip = Viewing(frames, spec.fps)
        for name, read in readers.items():
            poses = read(clip, focal)
            turned, away = (math.nan, math.nan) if poses is None else (e.mean() for e in pose_errors(poses, true))
            row = {"way": way, "reader": name, "moves": moves_of(spec)}
            rows.append({**row, "turned": math.degrees(turned), "away": float(away)})
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Per way and reader: mean and median of the errors over all clips, and over those with each move."""
    told: dict[str, Any] = {}
    for way in dict.fromkeys(row["way"] for row in rows):
        for reader in dict.fromkeys(row["reader"] for row in rows):
            part = [row for row in rows if (row["way"], row["reader"]) == (way, reader)]
            moves = sorted({move for row in part for move in row["moves"]})
            groups = {"all": part} | {move: [row for row in part if move in row["moves"]] for move in moves}
            told.setdefault(way, {})[reader] = {name: numbers(group) for name, group in groups.items()}
    return told


def numbers(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Clips that were read, and means and medians over them."""
    read = [row for row in rows if not math.isnan(row["turned"])]
    found: dict[str, Any] = {"clips": len(rows), "unread": len(rows) - len(read)}
    for key in ("turned", "away"):
        values = [row[key] for row in read] or [math.nan]
        found |= {key: round(float(np.mean(values)), 3), f"{key}_median": round(float(np.median(values)), 3)}
    return found


def show(told: dict[str, Any]) -> None:
    for way, readers in told.items():
        print(f"\n{way}: mean (median) error of the rotation in degrees, of the place in heights of the camera")
        for reader, groups in readers.items():
            for name, n in groups.items():
                turned, away = (f"{n[key]:6.2f} ({n[key + '_median']:5.2f})" for key in ("turned", "away"))
                print(f"  {reader:10} {name:6} {n['clips']:4} clips, {n['unread']:3} not read   {turned}   {away}")


def main(
    count: Annotated[int, typer.Option(min=1, help="Clips.")] = 200,
    seed: Annotated[int, typer.Option(help="First seed of the clips.")] = TEST_SEED,
    model: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Another than kinema's own network.")] = None,
    as_json: options.AsJson = None,
    card: Annotated[bool, typer.Option(help="Write the numbers into the card.json of the network.")] = False,
) -> None:
    """Measure the camera reader; exit code 1 when a bar is missed."""
    from kinema.backbones.load import load

    reader, rows = CameraReader.load(model), []
    readers: dict[str, Read] = {
        "reader": lambda clip, focal: reader.read(clip.frames).world_to_camera,
        "followed": followed,
        "unmoved": unmoved,
    }
    for spec, clips in shown(scenes(count, seed), load("mini"), seed):
        rows += rows_of(spec, clips, readers)
    told = summary(rows)
    show(told)
    told = {"command": f"python -m kinema.claims.camera_reader --count {count} --seed {seed}", **told}
    if as_json is not None:
        write_text(as_json, json.dumps(told, indent=2) + "\n")
    if card:
        write_measured(reader, model or WEIGHTS / "camera_reader", told)
    mine = told["decoded"]["reader"]
    if any(mine.get(name, mine["all"])["turned"] > BARS[bar] for name, bar in (("all", "turned"), ("orbit", "orbit"))):
        raise typer.Exit(1)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    typer.run(main)
