"""What claims about steering the camera share: paths to ask for, and how far a clip's camera is from them.

The cameras of clips are read by kinema's camera reader (`kinema.metrics.camera_reader`). What can be followed over the
ground (`kinema.metrics.camera`) is too little in clips that an autoencoder has made.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import random
from typing import TYPE_CHECKING

import numpy as np

from kinema.claims.bench.claim import Case, Numbers
from kinema.claims.bench.scenes import drawn, painter_of, read_drawn
from kinema.layers.camera_path import DISTANCE, HEIGHT, in_words, legs_of, parse
from kinema.metrics.camera import pose_errors
from kinema.metrics.camera_reader import seen_path
from kinema.metrics.viewing import Viewing
from kinema.world.caption import noun_phrase
from kinema.world.prompts import read_prompts
from kinema.world.spec import CameraSpec, EventSpec, SceneSpec
from kinema.world.words import GROUND_PHRASES, SKY_PHRASES

if TYPE_CHECKING:
    from kinema.backbones.protocol import Backbone

# Move -> its sizes, from and to, and their unit. None of the paths drawn was trained on. Only what the reader can read
# is asked for: of dollies it sees half, and of an orbit with a turn at the same time less than there is.
SIZES = {
    "pan": (10.0, 26.0, "deg"),
    "tilt": (7.0, 16.0, "deg"),
    "zoom": (1.25, 1.9, "x"),
    "orbit": (25.0, 65.0, "deg"),
    "rise": (0.8, 2.2, "m"),
}
SIDES = {"pan": ("left", "right"), "tilt": ("up", "down"), "zoom": ("in", "out"), "orbit": ("left", "right")}
SIDES |= {"rise": ("", "")}
DOES = {"bounce": (0.1, 2.9), "grow": (0.1, 2.9), "jump": (0.8, 2.0), "shrink": (0.1, 2.9)}  # and when, seconds
TWO = 0.4  # share of the paths that have two moves, half of these at once


def drawn_path(rng: random.Random) -> str:
    """A path as `--camera` takes it."""
    moves = []
    together = [move for move in SIZES if move != "orbit"]
    for move in rng.sample(together, 2) if rng.random() < TWO else rng.sample(list(SIZES), 1):
        low, high, unit = SIZES[move]
        side = rng.choice(SIDES[move])
        moves.append(f"{move} {side}".strip() + f":{rng.uniform(low, high):.2f}{unit}")
    return moves[0] if len(moves) == 1 else (" + " if rng.random() < 0.5 else ", then ").join(moves)


def steered(count: int, backbone: Backbone) -> list[Case]:
    """Held-out combinations to which one thing happens, each with a path of its own.

    The prompt says the path in words, as `in_words` does, but for the arms "nothing" and "path alone"; all are judged
    without them.
    """
    cases = []
    for number, prompt in enumerate(read_prompts("adherence", count)):
        rng = random.Random(1000 + number)
        does = rng.choice(list(DOES))
        start, end = DOES[does]
        spec = dataclasses.replace(
            prompt.spec,
            objects=(dataclasses.replace(prompt.spec.objects[0], position=(0.0, 0.0), size="medium"),),
            events=(EventSpec(action=does, start=start, end=end),),
        )
        thing, place = noun_phrase(prompt.spec.objects[0], None, "a"), GROUND_PHRASES[spec.ground][0]
        text = f"{thing} {does}s {place} {SKY_PHRASES[spec.sky][0]}"
        camera = drawn_path(rng)
        followed = {name: {"camera": camera} for name in ("ac3d", "vd3d")}
        words = f"{text}, {in_words(camera, spec.num_frames, spec.fps)}"
        said = dict.fromkeys(("words", "guided more", "guided apart", *followed), words)
        cases.append(Case(text=text, spec=spec, options=followed, texts=said))
    return cases


@functools.lru_cache(maxsize=256)
def asked(camera: str, frames: int, height: int, width: int, fps: float) -> np.ndarray:
    """Poses (T, 4, 4), lengths in heights of the camera."""
    poses = parse(camera, frames, height, width, fps).world_to_camera.double().numpy().copy()
    poses[:, :3, 3] /= HEIGHT
    return poses


def errors(clip: Viewing, case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Of rotation in radians and of place in heights of the first camera, (T,) each, as the camera reader sees it."""
    poses = asked(case.options["ac3d"]["camera"], len(clip), clip.height, clip.width, clip.fps)
    return pose_errors(seen_path(clip).world_to_camera, poses)


def turned_wrong(clip: Viewing, case: Case) -> float:
    """Mean over frames of the angle between the camera asked for and the one that kinema's camera reader sees in the
    clip, degrees. 10.8 would be a camera that never moves; what the reader says of paths that were followed exactly,
    also with the model's own textures, stands beside it in AC3D's claim.
    """
    return math.degrees(float(errors(clip, case)[0].mean()))


def stands_wrong(clip: Viewing, case: Case) -> float:
    """Mean over frames of the distance between the camera asked for and the one that kinema's camera reader sees in the
    clip, heights of the first camera. 0.36 would be a camera that never moves.
    """
    return float(errors(clip, case)[1].mean())


def filmed(spec: SceneSpec, camera: str) -> np.ndarray:
    """A rendered scene (T, H, W, 3) uint8 whose camera follows a path in words exactly, from where paths begin."""
    legs = tuple(legs_of(camera, spec.num_frames, spec.fps))
    placed = CameraSpec(distance=DISTANCE, height=HEIGHT, legs=legs)
    return drawn(dataclasses.replace(spec, camera=placed))[0]


def read_exactly(backbone: Backbone, case: Case, seed: int, steps: int | None) -> Numbers:
    """What is read where the path was followed exactly and only the autoencoder stands between.

    Some of what a prompt names leaves the picture on the way, so that the judge does not find it either.
    """
    camera = case.options["ac3d"]["camera"]
    return read_drawn(backbone, case, lambda spec: filmed(spec, camera), JUDGED, READERS)


def read_painted(backbone: Backbone, case: Case, seed: int, steps: int | None) -> Numbers:
    """As `read_exactly`, with the model's own textures and faults: see `kinema.training.painting`.

    The model is told a prompt that names no camera, which in mini means a still one.
    """
    camera = case.options["ac3d"]["camera"]
    anew = painter_of(backbone, case.text, seed)
    return read_drawn(backbone, case, lambda spec: filmed(spec, camera), JUDGED, READERS, anew)


def zooms_wrong(clip: Viewing, case: Case) -> float:
    """Mean over frames of how far the zoom that kinema's camera reader sees is from the one asked for, as the logarithm
    of the factor between them; 0 for most paths where a camera never moves, as few of them zoom.
    """
    path = parse(case.options["ac3d"]["camera"], len(clip), clip.height, clip.width, clip.fps)
    focal = path.intrinsics[:, 0, 0].double().numpy()
    return float(np.abs(np.log(seen_path(clip).zoom) - np.log(focal / focal[0])).mean())


JUDGED = ("t2v_alignment", "camera_motion_residual", "dynamic_degree")
READERS = {"turned_wrong": turned_wrong, "stands_wrong": stands_wrong, "zooms_wrong": zooms_wrong}
NOTES = {
    "mini": "A prompt that names no camera means a still one to mini, so the path alone is followed less far than the "
    "path and the same in words, as the arms of both adapters have it. Fast pans in half of a clip and large orbits "
    "are made by half, and tilts too far, the more so the more they are guided. AC3D saw 276,800 clips and VD3D "
    "140,800. The weight of joint guidance was chosen on 64 other paths.",
}
