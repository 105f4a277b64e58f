"""Techniques register themselves from their own file; lists, docs and tests are made from the registry."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from kinema.core.errors import KinemaError

if TYPE_CHECKING:
    from kinema.core.technique import Technique

# Folders that hold techniques; one that does not exist yet is passed over.
TOPICS = (
    "guidance", "long", "events", "motion", "camera", "structure", "subjects", "sound", "scene", "speed", "quality",
)  # fmt: skip
READING_TOPICS = ("understanding",)  # folders of methods that read clips, and are no part of a run

T = TypeVar("T", bound="type[Technique]")
R = TypeVar("R", bound=type)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What the registry knows of a technique."""

    name: str  # as on the command line
    cls: type[Technique]
    topic: str  # the folder it lives in
    paper: str  # "arXiv:0000.00000"
    base: str  # models the paper used
    neutral: Mapping[str, Any]  # field values with which it changes nothing


@dataclass(frozen=True, kw_only=True)
class Reader:
    """What the registry knows of a method that reads clips with a model: a dataclass, no Technique."""

    name: str
    cls: type
    topic: str
    paper: str
    base: str
    command: str  # of the command line that uses it


_ENTRIES: dict[str, Entry] = {}
_READERS: dict[str, Reader] = {}


def technique(name: str, *, paper: str, base: str, neutral: Mapping[str, Any]) -> Callable[[T], T]:
    """Class decorator: registers a Technique under `name`. Raises: KinemaError for a name that is taken."""

    def register(cls: T) -> T:
        known = _ENTRIES.get(name)
        place = (cls.__module__, cls.__qualname__)  # the same place again is a module that was reloaded
        if known is not None and (known.cls.__module__, known.cls.__qualname__) != place:
            raise KinemaError(
                f"the technique {name!r} is there already, in {known.cls.__module__}; give that of {cls.__module__} "
                "another name"
            )
        topic = cls.__module__.rpartition(".")[0].rpartition(".")[2]  # "" for a class of a script
        _ENTRIES[name] = Entry(name=name, cls=cls, topic=topic, paper=paper, base=base, neutral=dict(neutral))
        cls.name = name
        return cls

    return register


def reader(name: str, *, paper: str, base: str, command: str) -> Callable[[R], R]:
    """Class decorator: registers a method that reads clips, for the command `command`."""

    def register(cls: R) -> R:
        topic = cls.__module__.rpartition(".")[0].rpartition(".")[2]
        _READERS[name] = Reader(name=name, cls=cls, topic=topic, paper=paper, base=base, command=command)
        return cls

    return register


def techniques() -> dict[str, Entry]:
    """All techniques by name. Imports every topic folder the first time."""
    _import(TOPICS)
    return dict(sorted(_ENTRIES.items()))


def readers() -> dict[str, Reader]:
    """All methods that read clips, by name. Imports their folders the first time."""
    _import(READING_TOPICS)
    return dict(sorted(_READERS.items()))


def _import(topics: Sequence[str]) -> None:
    import kinema

    for topic in topics:
        for root in kinema.__path__:
            for module in pkgutil.iter_modules([f"{root}/{topic}"]):
                importlib.import_module(f"kinema.{topic}.{module.name}")


def find(name: str) -> Entry:
    """The technique called `name`. Raises KinemaError with the nearest name when there is none."""
    known = techniques()
    if name in known:
        return known[name]
    if name in readers():
        raise KinemaError(f"{name} reads clips and makes none; use it with: kinema {readers()[name].command}")
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
    raise KinemaError(f"there is no technique {name!r}; {hint}")
