"""From what a user types to a camera path: moves in words, or a file of poses.

    camera = moment {("," | "|" | "then") moment}    one after the other, in equal shares of the clip
    moment = [times] move {"+" move}                 at once; what a move did stays done
    times  = "0-1.5s"                                for all moments or for none
    move   = "static" | word [side] [":" size]       "orbit", "pan left:20deg", "zoom in:1.7x", "dolly in:2m"

The first camera stands where those of the world do in the mean: `DISTANCE` from the point that it looks at, `HEIGHT`
above the ground. Moves and their usual sizes are those of `kinema.core.camera`.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor

from kinema.core.camera import (
    DOLLY,
    FOCAL,
    LOWEST_EYE,
    MOVES,
    ORBIT,
    PAN,
    RISE,
    TILT,
    ZOOM,
    CameraLeg,
    in_turn,
    intrinsics_of,
    is_poses,
    moved,
    offset,
    relative,
)
from kinema.core.errors import KinemaError

DISTANCE, HEIGHT = 6.75, 2.1  # metres
STATIC = ("static", "still")
LONGEST = 1000  # characters of a text

# Word -> unit, the world's usual size in it, and how much may be done in all, to either side. Zooms are factors.
SIZES: dict[str, tuple[str, float, tuple[float, float]]] = {
    "pan": ("deg", math.degrees(PAN), (-360.0, 360.0)),
    "tilt": ("deg", math.degrees(TILT), (-75.0, 75.0)),
    "zoom": ("x", ZOOM, (0.2, 8.0)),
    "dolly": ("m", DOLLY * DISTANCE, (-50.0, 6.0)),
    "orbit": ("deg", math.degrees(ORBIT), (-720.0, 720.0)),
    "rise": ("m", RISE, (LOWEST_EYE - HEIGHT, 50.0)),
}
VERBS = {"pan": "pans", "tilt": "tilts", "zoom": "zooms", "dolly": "dollies", "orbit": "orbits", "rise": "rises"}
USUAL_DOWN = 1.5  # metres of a "rise down" without a size: the usual one would end in the ground
UNITS = {
    "deg": ("deg", "degree", "degrees", "°"),
    "x": ("x", "times"),
    "m": ("m", "metre", "metres", "meter", "meters"),
}
WRITTEN = "write it as in 'orbit left:40deg', 'pan left:20deg + zoom in:1.3x' or 'tilt up, then dolly in:1m'"

NUMBER = r"\d{1,6}(?:\.\d{1,6})?"
TIMES = re.compile(rf"({NUMBER}) ?s? ?(?:-|to) ?({NUMBER}) ?s ?:? ?(.*)")
MOVE = re.compile(rf"([a-z]+)(?: ([a-z]+))?(?: ?[: ] ?(-?{NUMBER}) ?([a-z°]*))?")


@dataclass(frozen=True, eq=False)
class CameraPath:
    """One camera for each of T frames."""

    intrinsics: Tensor  # (T, 3, 3) pixels, float32
    world_to_camera: Tensor  # (T, 4, 4) metres, float32; the first is the identity


def parse(text: str, num_frames: int, height: int, width: int, fps: float) -> CameraPath:
    """The camera path that a text or the name of a JSON file (`kinema.layers.camera_file`) stands for.

    Args:
        text: what the user typed.
        num_frames: T.
        height, width: of the frames, pixels.
        fps: frames a second.

    Raises:
        KinemaError: one sentence, for what cannot be read, or a camera that cannot go there.
    """
    if not text.strip():
        raise KinemaError(f"nothing says how the camera moves; {WRITTEN}")
    if len(text) > LONGEST:
        raise KinemaError(f"the camera has {len(text)} characters; use at most {LONGEST}: {WRITTEN}")
    if is_poses(text):
        from kinema.layers.camera_file import read_poses

        return read_poses(text.strip(), num_frames, height, width, fps)
    parts = torch.linspace(0.0, 1.0, num_frames, dtype=torch.float64)
    moves = [offset(leg, parts) for leg in legs_of(text, num_frames, fps)]
    refuse_too_far(moves)
    zoomed, poses = moved(moves, num_frames, distance=DISTANCE, height=HEIGHT)
    return CameraPath(intrinsics_of(FOCAL * height * zoomed, height, width).float(), relative(poses).float())


def legs_of(text: str, num_frames: int, fps: float) -> list[CameraLeg]:
    """The moves of a text, in parts of a clip. Raises: KinemaError, one sentence."""
    plain = re.sub(r"\s+", " ", text.lower()).strip()
    moments = [m.strip() for m in re.split(r"(?:,|\||\bthen\b)(?: ?then\b)?", plain)]
    timed = [TIMES.fullmatch(moment) for moment in moments]
    if any(timed) and not all(timed):
        raise KinemaError(f"the camera {text!r} says times for some moves only; say them for all or for none")
    legs = []
    for i, (moment, times) in enumerate(zip(moments, timed, strict=True)):
        start, end = span(times[1], times[2], num_frames, fps) if times else (i / len(moments), (i + 1) / len(moments))
        for move in (times[3] if times else moment).split("+"):
            if not move.strip():
                raise KinemaError(f"the camera {text!r} says no move before or behind a ',' or '+'; {WRITTEN}")
            if move.strip() in STATIC:
                continue
            name, amount = read_move(move.strip())
            legs.append(CameraLeg(move=name, amount=amount, start=start, end=end))
    return legs


def in_words(text: str, num_frames: int, fps: float) -> str:
    """A path as a prompt says it, without sizes and times: "the camera pans left, then tilts up".

    "" for poses, for a camera that stays, and for one that goes down, for which no caption has words.
    """
    legs = [] if is_poses(text) else in_turn(legs_of(text, num_frames, fps))
    ways = [(joint, leg.way.split()) for joint, leg in legs]
    if ["rise", "down"] in (way for _, way in ways) or not ways:
        return ""
    does = (joint + (VERBS[word] if word == "rise" else f"{VERBS[word]} {side}") for joint, (word, side) in ways)
    return "the camera " + "".join(does)


def span(first: str, last: str, num_frames: int, fps: float) -> tuple[float, float]:
    """Parts of the clip from seconds; the first frame is at 0 s, and the last ends with the clip."""
    start, end, length, whole = float(first), float(last), (num_frames - 1) / fps, num_frames / fps
    if not start < end <= whole + 0.005 or start >= length:
        raise KinemaError(
            f"the camera moves from {first}s to {last}s and the video is {whole:g}s long; "
            "let each move end after its start and within the video"
        )
    return start / length, min(end / length, 1.0)


def read_move(text: str) -> tuple[str, float]:
    """The move of a text as the world names it, and its size, times the usual one. Raises: KinemaError."""
    match = MOVE.fullmatch(text)
    if match is None:
        raise KinemaError(f"the camera move {text!r} cannot be read; {WRITTEN}")
    word, side, number, unit = match.groups()
    if word not in MOVES:
        near = difflib.get_close_matches(word, [*MOVES, *STATIC], n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"use one of static, {', '.join(MOVES)}"
        raise KinemaError(f"there is no camera move {word!r}; {hint}")
    sides = MOVES[word]
    if side and side not in sides:
        raise KinemaError(f"the camera cannot {word} {side!r}; use {word} {sides[0]} or {word} {sides[1]}")
    kind, usual, allowed = SIZES[word]
    if unit and unit not in UNITS[kind]:
        raise KinemaError(
            f"the size of {word} is given in {kind}, not in {unit!r}; for example {word}:{usual:.3g}{kind}"
        )
    if number is None:
        down = (word, side) == ("rise", "down")
        return f"{word} {side or sides[0]}", USUAL_DOWN / usual if down else 1.0
    size = float(number)
    if kind == "x":
        if not allowed[0] <= size <= allowed[1]:
            raise KinemaError(f"the camera zooms by {number}x; use {allowed[0]:g}x to {allowed[1]:g}x")
        return f"{word} {side or sides[0]}", math.log(size) / math.log(usual)
    return f"{word} {side or sides[0]}", size / usual


def refuse_too_far(moves: list[tuple[str, Tensor]]) -> None:
    """What the moves of one word add up to at any time must be possible."""
    for word, (kind, usual, (low, high)) in SIZES.items():
        total = sum((more for name, more in moves if name == word), torch.zeros(1, dtype=torch.float64))
        sizes = usual**total if kind == "x" else usual * total
        for size in (float(sizes.min()), float(sizes.max())):
            if not low - 1e-6 <= size <= high + 1e-6:
                raise KinemaError(
                    f"the camera's {word} comes to {size:.3g}{kind} in all ({MOVES[word][0]} counts up); "
                    f"use {low:g} to {high:g}{kind}"
                )
