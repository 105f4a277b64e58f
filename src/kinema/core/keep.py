"""Which frames of a clip are given to a model, as people write it: "0:5", "-4:", "0:5,-4:", "12".

Frames count from 0, negative ones from the end, and the second number of a part is behind its last frame, as in
Python. A part that begins at a negative number stands at the end of the clip and of the video that is made, any other
at the start of both, so that the two may differ in length.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kinema.core.errors import KinemaError

PART = re.compile(r"\s*(?:(-?\d{1,9})?\s*(:)\s*(-?\d{1,9})?|(-?\d{1,9}))\s*")


def in_frames(count: int) -> str:
    """A length in words."""
    return f"{count} frame" if count == 1 else f"{count} frames"


@dataclass(frozen=True)
class Kept:
    """Frames `first` to `stop` - 1 of the video; `shift` more is their number in the clip."""

    first: int
    stop: int
    shift: int = 0


def check(text: str) -> None:
    """Raises: KinemaError for a text that names no frames."""
    _bounds(text)


def kept(text: str | None, frames: int, length: int) -> list[Kept]:
    """The parts of a video of `frames` frames that are given by a clip of `length`, in order; None keeps a short clip.

    Raises: KinemaError for frames that the video or the clip does not have, and when nothing is left to be made.
    """
    if text is None:
        if length >= frames:
            raise KinemaError(
                f"the clip has {in_frames(length)} and the video {frames}; say with keep which of them stay, as in 0:5"
            )
        return [Kept(0, length)]
    found = sorted((_placed(*bounds, text, frames, length) for bounds in _bounds(text)), key=lambda part: part.first)
    merged: list[Kept] = []
    for part in found:
        before = merged[-1] if merged else None
        if before is not None and part.first <= before.stop and part.shift == before.shift:
            merged[-1] = Kept(before.first, max(before.stop, part.stop), part.shift)
        elif before is not None and part.first < before.stop:
            raise KinemaError(f"keep {text!r} gives frame {part.first} of the video twice; give each frame once")
        else:
            merged.append(part)
    if sum(part.stop - part.first for part in merged) == frames:
        raise KinemaError(f"keep {text!r} is all {frames} frames of the video; leave some to be made")
    return merged


def _bounds(text: str) -> list[tuple[int | None, int | None]]:
    """Numbers of each part as they are written; None for one that is left out."""
    found: list[tuple[int | None, int | None]] = []
    for piece in text.split(","):
        match = PART.fullmatch(piece)
        if match is None:
            raise KinemaError(f"keep is {text!r}; name frames as in 0:5, -4: or 0:5,-4:")
        start, colon, stop, one = match.groups()
        if colon is None:
            single = int(one)
            found.append((single, None if single == -1 else single + 1))
        else:
            found.append((None if start is None else int(start), None if stop is None else int(stop)))
    return found


def _placed(start: int | None, stop: int | None, text: str, frames: int, length: int) -> Kept:
    at_end = start is not None and start < 0
    first, behind = (
        default if number is None else number + frames * (number < 0)
        for number, default in ((start, 0), (stop, frames))
    )
    if not 0 <= first < behind <= frames:
        raise KinemaError(
            f"keep {text!r} does not fit into a video of {in_frames(frames)}; use frames 0 to {frames - 1}"
        )
    part = Kept(first, behind, length - frames if at_end else 0)
    if part.first + part.shift < 0 or part.stop + part.shift > length:
        raise KinemaError(f"keep {text!r} names frames that the clip does not have; it has {length}")
    return part


def latent_frames(part: Kept, frames_per_latent: int) -> tuple[int, int]:
    """First latent frame of a part, and the one behind its last: latent frame 0 is frame 0, g is k(g-1)+1 .. kg.

    Raises: KinemaError when the part cuts a latent frame in two.
    """
    k = frames_per_latent
    first = 0 if part.first == 0 else (part.first - 1) // k * k + 1
    stop = -(-(part.stop - 1) // k) * k + 1
    if (first, stop) == (part.first, part.stop):
        return -(-first // k), (stop - 1) // k + 1
    raise KinemaError(
        f"frames {part.first} to {part.stop - 1} cut a latent frame in two: they are frame 0, then {k} frames each; "
        f"keep {first}:{stop}, or less"
    )


def pattern(given: Sequence[bool]) -> str:
    """What a choice of latent frames is called in a model's card: first, first_k, last, first_and_last or any."""
    frames = tuple(i for i, there in enumerate(given) if there)
    last = len(given) - 1
    named = {"first": (0,), "last": (last,), "first_and_last": (0, last), "first_k": tuple(range(len(frames)))}
    return next((name for name, places in named.items() if places == frames), "any")
