"""What a corruption is: a fault of known strength, put into clips to see which metrics notice it.

A corruption registers itself from its own file. It takes a clip and a grade from 0 (nothing) to 1 (severe); one of a
whole set (`@corruption("...", of="set")`) takes a list of clips. It is deterministic.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from kinema.core.errors import KinemaError
from kinema.metrics.viewing import Viewing

GRADES = (0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """A fault by name. `of` "set": its function takes and gives a list of clips."""

    name: str
    of: Literal["clip", "set"]
    function: Callable[..., Any]

    def __call__(self, clips: Sequence[Viewing], grade: float) -> list[Viewing]:
        """The clips with the fault; their references stay as they are. `grade` 0 to 1; 0 changes nothing."""
        if not 0 <= grade <= 1:
            raise KinemaError(f"grade is {grade}; use 0 to 1")
        if grade == 0:
            return list(clips)
        if self.of == "set":
            found: list[Viewing] = self.function(list(clips), grade)
            return found
        return [self.function(clip, grade) for clip in clips]


_CORRUPTIONS: dict[str, Corruption] = {}
F = TypeVar("F", bound=Callable[..., Any])


def corruption(name: str, of: Literal["clip", "set"] = "clip") -> Callable[[F], F]:
    """Function decorator: registers a corruption under `name`; the function stays as it is."""

    def register(function: F) -> F:
        known = _CORRUPTIONS.get(name)
        if known is not None and known.function.__module__ != function.__module__:
            raise RuntimeError(f"corruption {name!r} is registered twice")
        _CORRUPTIONS[name] = Corruption(name=name, of=of, function=function)
        return function

    return register


def corruptions() -> dict[str, Corruption]:
    """All corruptions by name."""
    from kinema.metrics import corruptions as folder

    for root in folder.__path__:
        for module in pkgutil.iter_modules([root]):
            importlib.import_module(f"kinema.metrics.corruptions.{module.name}")
    return dict(sorted(_CORRUPTIONS.items()))
