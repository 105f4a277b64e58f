"""Numbers of a request against what a model makes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kinema.backbones.folder import Folder
from kinema.backbones.protocol import Defaults
from kinema.core.errors import KinemaError

if TYPE_CHECKING:
    from kinema.backbones.base import DiffusersBackbone
    from kinema.request import Request


def check_multiple(name: str, value: int, multiple: int, most: int | None, least: int = 0, add: int = 0) -> None:
    """Raises KinemaError with the nearest allowed values, when value is no multiple between least and most."""
    top = max(value + multiple, least) if most is None else most
    if value % multiple == 0 and least <= value <= top:
        return
    below = min(max(value // multiple * multiple, least), top // multiple * multiple)
    above = min(max(below + multiple, least), top // multiple * multiple) if value > below else below
    near = " or ".join(str(n + add) for n in dict.fromkeys((below, above)))
    rule = f"a multiple of {multiple}" + (f" plus {add}" if add else "")
    span = f"{least + add} or more" if most is None else f"{least + add} to {most + add}"
    raise KinemaError(f"{name} is {value + add}; this model makes {rule}, {span}: use {near}")


def defaults_of(folder: Folder, known: Defaults) -> Defaults:
    """`known`, with what the model's card says otherwise.

    Raises: KinemaError when the card holds anything else than numbers for these.
    """
    card = folder.card.get("defaults", {})
    names = {f.name for f in dataclasses.fields(Defaults)}
    if not isinstance(card, dict) or not card.keys() <= names:
        raise KinemaError(f"card.json of model {folder.name!r} has defaults that kinema does not know; is it newer?")
    for name, value in card.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise KinemaError(f"{name} is {value!r} in card.json of model {folder.name!r}; use a number above 0")
    return dataclasses.replace(known, **card)


def settled(backbone: DiffusersBackbone, requests: Sequence[Request]) -> tuple[int, int, int, int, float]:
    """num_frames, height, width, num_inference_steps and fps of a batch, open fields filled in and checked."""
    found = set()
    for r in requests:
        d = backbone.defaults
        steps, fps = r.num_inference_steps or d.num_inference_steps, r.fps or d.fps
        found.add((r.num_frames or d.num_frames, r.height or d.height, r.width or d.width, steps, fps))
    if len(found) != 1:
        raise KinemaError("the requests of a batch differ in size, length, steps or fps; make them equal")
    frames, height, width, steps, fps = found.pop()
    reach = backbone.most_tokens[0]
    most = None if reach is None else (reach * backbone.patch[0] - 1) * backbone.frames_per_latent
    check_multiple("num_frames", frames - 1, backbone.frames_step, most, add=1)
    for name, value, axis in (("height", height, 1), ("width", width, 2)):
        multiple, reach = backbone.pixels_per_cell * backbone.patch[axis], backbone.most_tokens[axis]
        check_multiple(name, value, multiple, None if reach is None else reach * multiple, least=multiple)
    return frames, height, width, steps, float(fps)


def check_seen(backbone: DiffusersBackbone, seen: int) -> None:
    """Raises: KinemaError when attention over time sees more latent frames together than the model has places for."""
    reach = backbone.most_tokens[0]
    most = None if reach is None else reach * backbone.patch[0]
    if most is not None and seen > most:
        raise KinemaError(
            f"attention sees {seen} latent frames of this clip together, and model {backbone.name!r} has places for "
            f"{most}; ask for fewer frames, or for windows of {most} at most in all steps and blocks"
        )
