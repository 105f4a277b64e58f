"""Numbers of a request against what a model makes."""

from __future__ import annotations

import dataclasses

from kinema.backbones.folder import Folder
from kinema.backbones.protocol import Defaults
from kinema.core.errors import KinemaError


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
