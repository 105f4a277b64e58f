"""What turns frames into features, and the list of all that do.

An extractor registers itself from its own file under a name; `load_extractor("clip")` loads its usual weights and
`load_extractor("clip@openai/clip-vit-large-patch14")` others of the same kind, from the hub or from a folder. Every
number made with an extractor carries this text, so that numbers of different extractors are never taken for one.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
from abc import ABC
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

import numpy as np

from kinema.core.errors import KinemaError

if TYPE_CHECKING:
    from kinema.metrics.questions import Question

Given = Literal[
    "clip", "frames", "logits", "text", "depth", "mask", "flow", "boxes", "captions", "quality", "between", "answers"
]


@dataclass(frozen=True)
class Box:
    """A thing found in a frame: the phrase that it was looked for with, where it is, and how sure that is, 0..1."""

    phrase: str
    edges: tuple[float, float, float, float]  # x0, y0, x1, y1 pixels, right and down from the upper left corner
    score: float


class Extractor(ABC):
    """Features of clips. A subclass overrides what it can give and names it in `gives`.

    It is loaded once and used by several threads; a call with the same frames gives the same numbers.
    """

    name: ClassVar[str]  # set by the decorator
    gives: ClassVar[frozenset[Given]]
    usual: ClassVar[str]  # the model that is meant when none is named; "" for what is inside kinema
    model: str  # the model that is loaded

    def __init__(self, model: str) -> None:
        """Loads the weights. Raises: Unreachable when they cannot be had, KinemaError when they do not fit."""
        self.model = model

    @property
    def label(self) -> str:
        """How results name it: "clip", or "clip@MODEL" for another model than the usual one."""
        return self.name if self.model == self.usual else f"{self.name}@{self.model}"

    def clip(self, frames: np.ndarray, fps: float) -> np.ndarray:
        """(T, H, W, 3) uint8 -> (D,) float32, one vector for the whole clip."""
        raise KinemaError(f"extractor {self.name!r} gives no features of whole clips")

    def frames(self, frames: np.ndarray) -> np.ndarray:
        """(T, H, W, 3) uint8 -> (T, D) float32, a vector for each frame."""
        raise KinemaError(f"extractor {self.name!r} gives no features of single frames")

    def logits(self, frames: np.ndarray, fps: float) -> np.ndarray:
        """(T, H, W, 3) uint8 -> (K,) float32, log odds of classes of the whole clip."""
        raise KinemaError(f"extractor {self.name!r} tells no classes")

    def depth(self, frames: np.ndarray) -> np.ndarray:
        """(T, H, W, 3) uint8 -> (T, H, W) float32, nearness (one over depth) up to scale and shift; 0 in the sky."""
        raise KinemaError(f"extractor {self.name!r} sees no depth")

    def mask(self, frames: np.ndarray) -> np.ndarray:
        """(T, H, W, 3) uint8 -> (T, H, W) float32 in 0..1, how surely a pixel belongs to an object."""
        raise KinemaError(f"extractor {self.name!r} finds no objects")

    def flow(self, frames: np.ndarray) -> np.ndarray:
        """(T, H, W, 3) uint8 -> (T-1, H, W, 2) float32, how far each pixel moves to the next frame: right and down."""
        raise KinemaError(f"extractor {self.name!r} gives no optical flow")

    def boxes(self, frames: np.ndarray, phrases: Sequence[str]) -> list[list[Box]]:
        """(T, H, W, 3) uint8 -> for each frame what it finds of these phrases, for example "red ball"."""
        raise KinemaError(f"extractor {self.name!r} looks for no things by name")

    def knows(self, phrase: str) -> bool:
        """Whether it can say of a phrase that what it names is there or not; asked of those that give "boxes"."""
        return True

    def captions(self, frames: np.ndarray) -> list[str]:
        """(T, H, W, 3) uint8 -> a sentence about each frame, in lower case."""
        raise KinemaError(f"extractor {self.name!r} describes no frames")

    def quality(self, frames: np.ndarray) -> np.ndarray:
        """(T, H, W, 3) uint8 -> (T,) float32, how good each frame is: its score as a share of the best on its scale."""
        raise KinemaError(f"extractor {self.name!r} judges no quality")

    def between(self, frames: np.ndarray) -> np.ndarray:
        """(T, H, W, 3) uint8 -> (T-1, H, W, 3) uint8, a frame half way between each two neighbours."""
        raise KinemaError(f"extractor {self.name!r} makes no frames between others")

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes of `logits`, in lower case."""
        raise KinemaError(f"extractor {self.name!r} has no names for its classes")

    def text(self, prompt: str) -> np.ndarray:
        """A sentence -> (D,) float32 in the space of `clip` or `frames`."""
        raise KinemaError(f"extractor {self.name!r} reads no text")

    def answers(self, frames: np.ndarray, fps: float, questions: Sequence[Question]) -> np.ndarray:
        """(T, H, W, 3) uint8 and Q questions -> (Q,) float64, the chance of a yes, 0..1; NaN where it cannot tell."""
        raise KinemaError(f"extractor {self.name!r} answers no questions")


_EXTRACTORS: dict[str, type[Extractor]] = {}
E = TypeVar("E", bound="type[Extractor]")


def extractor(name: str, *, gives: tuple[Given, ...], usual: str = "") -> Callable[[E], E]:
    """Class decorator: registers an `Extractor` under `name`; `usual` is its model when none is named."""

    def register(cls: E) -> E:
        known = _EXTRACTORS.get(name)
        if known is not None and known.__module__ != cls.__module__:
            raise RuntimeError(f"extractor {name!r} is registered twice")
        cls.name, cls.gives, cls.usual = name, frozenset(gives), usual
        _EXTRACTORS[name] = cls
        return cls

    return register


def extractors() -> dict[str, type[Extractor]]:
    """All extractors by name."""
    from kinema.metrics import extractors as folder

    for root in folder.__path__:
        for module in pkgutil.iter_modules([root]):
            importlib.import_module(f"kinema.metrics.extractors.{module.name}")
    return dict(sorted(_EXTRACTORS.items()))


def find_extractor(name: str) -> tuple[type[Extractor], str]:
    """The class and the model of "NAME" or "NAME@MODEL". Raises KinemaError when there is no extractor NAME."""
    kind, at, model = name.partition("@")
    known = extractors()
    if kind not in known:
        near = difflib.get_close_matches(kind, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
        raise KinemaError(f"there is no extractor {kind!r}; {hint}")
    if at and not model:
        raise KinemaError(
            f"extractor {name!r} names no model after the @; give a hub id or a folder, or leave the @ out"
        )
    return known[kind], model or known[kind].usual


@functools.lru_cache(maxsize=8)
def load_extractor(name: str) -> Extractor:
    """The extractor "NAME" or "NAME@MODEL", loaded; the last eight are kept.

    Raises: Unreachable when its weights cannot be had, KinemaError when there is no such extractor.
    """
    kind, model = find_extractor(name)
    return kind(model)
