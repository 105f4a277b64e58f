"""Fixed lists of prompts for the claims, one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kinema.world.reading import ReadCaption, parse_caption
from kinema.world.spec import SceneSpec

FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt, what it asks for, and the scene it describes."""

    text: str
    spec: SceneSpec

    @property
    def asked(self) -> ReadCaption:
        return parse_caption(self.text)

    def to_dict(self) -> dict[str, Any]:
        asked = self.asked
        said = {name: getattr(asked, name) for name in ("kind", "colour", "ground", "sky", "events", "camera")}
        return {"prompt": self.text, "asked": said, "spec": self.spec.to_dict()}


def read_prompts(name: str, count: int | None = None) -> list[Prompt]:
    """The first `count` prompts of a list of this folder. Raises: ValueError when it has fewer."""
    lines = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    if count is not None and not 1 <= count <= len(lines):
        raise ValueError(f"{count} prompts are asked for; the list {name} has {len(lines)}, use 1 to {len(lines)}")
    rows = [json.loads(line) for line in lines[:count]]
    return [Prompt(text=row["prompt"], spec=SceneSpec.from_dict(row["spec"])) for row in rows]


def write_prompts(name: str, prompts: Sequence[Prompt]) -> Path:
    """Write a list; it is meant to be written once and then kept."""
    path = FOLDER / f"{name}.jsonl"
    path.write_text("".join(json.dumps(p.to_dict()) + "\n" for p in prompts), encoding="utf-8")
    return path
