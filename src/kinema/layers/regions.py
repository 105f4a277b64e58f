"""Where on the picture something stands, in words: "red ball: 0.1 0.5 0.4 0.9 @ 0-1.5s; tree: 0.7 0 1 0.8"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kinema.core.errors import KinemaError
from kinema.timeline import Timeline

if TYPE_CHECKING:
    from kinema.core.run import Run

NUMBER = r"(\d+(?:\.\d+)?|\.\d+)"
ENTRY = re.compile(rf"([^:@]+?)\s*:\s*{NUMBER}\s+{NUMBER}\s+{NUMBER}\s+{NUMBER}\s*(?:@\s*(\S.*))?")


@dataclass(frozen=True)
class Region:
    """A box in which words of the prompt are to be seen."""

    words: str
    left: float  # 0..1 of the width
    top: float  # 0..1 of the height
    right: float
    bottom: float
    when: str = ""  # "0-1.5s", "0-12f" or "0-25%" of the video; "" is all of it

    def share(self, rows: int, columns: int) -> Tensor:
        """How much of each cell of a grid lies in the box, (rows, columns), 0..1."""
        return torch.outer(_covered(rows, self.top, self.bottom), _covered(columns, self.left, self.right))

    def frames(self, run: Run, name: str) -> Tensor:
        """Which latent frames of a run it belongs to, (T,) bool. Raises: KinemaError for times that the video lacks."""
        conditions, backbone = run.conditions, run.backbone
        if not self.when:
            return torch.ones(conditions.shape[2], dtype=torch.bool)
        try:
            timeline = Timeline.parse(f"{self.when}: {self.words}")
            if not timeline.timed:
                raise KinemaError("expected a range as in 0-1.5s, 0-12f or 0-25%")
            (found,) = timeline.frames(conditions.num_frames, conditions.fps, backbone.frames_per_latent)
        except (KinemaError, ValueError) as error:
            raise KinemaError(f"{name}, times {self.when!r} of {self.words!r}: {error}") from None
        ahead = conditions.shape[2] - len(found)
        return torch.cat([found.new_zeros(ahead), found])


def _covered(cells: int, start: float, stop: float) -> Tensor:
    """How much of each of `cells` equal parts of 0..1 lies between start and stop, (cells,)."""
    edges = torch.linspace(0, 1, cells + 1, dtype=torch.float64)
    shared = edges[1:].clamp(max=stop) - edges[:-1].clamp(min=start)
    return (shared.clamp(min=0) * cells).float()


def read_regions(text: str, name: str) -> tuple[Region, ...]:
    """Boxes from a text, parted by semicolons or line breaks: words: left top right bottom, and times behind an @.

    Raises: KinemaError, naming `name` and the entry, for anything else, and for a box outside the picture.
    """
    found = []
    for entry in filter(None, (part.strip() for part in re.split(r"[;\n]", text))):
        match = ENTRY.fullmatch(entry)
        if match is None:
            raise KinemaError(
                f"{name} has {entry!r}; write words, a colon, and left top right bottom from 0 to 1, as in "
                "'red ball: 0.1 0.5 0.4 0.9' or 'red ball: 0.1 0.5 0.4 0.9 @ 0-1.5s'"
            )
        left, top, right, bottom = (float(number) for number in match.groups()[1:5])
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise KinemaError(f"{name} has the box {entry!r}; use left < right and top < bottom, all from 0 to 1")
        found.append(Region(match[1], left, top, right, bottom, (match[6] or "").strip()))
    if not found:
        raise KinemaError(f"{name} is empty; say where words of the prompt are, as in 'red ball: 0.1 0.5 0.4 0.9'")
    return tuple(found)
