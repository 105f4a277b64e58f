"""What was asked for: prompts by clip, from lines of JSON or from the prompt file of VBench."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from kinema.core.errors import KinemaError
from kinema.evaluation.clips import VIDEOS, whole
from kinema.files import reason

Place = str | os.PathLike[str]


@dataclass(frozen=True)
class Asked:
    """What was asked for of a clip."""

    prompt: str
    auxiliary: dict[str, Any] | None = None  # "auxiliary_info" of VBench's prompt file, by dimension
    dimensions: tuple[str, ...] | None = None  # "dimension" there: what VBench measures on this prompt; None: anything

    @property
    def mark(self) -> str | list[Any]:
        """Tells whether it is still the same."""
        if self.auxiliary is None and self.dimensions is None:
            return self.prompt
        return [self.prompt, self.auxiliary, None if self.dimensions is None else list(self.dimensions)]

    def and_(self, other: Asked) -> Asked:
        """Both, of the same prompt: VBench's file has two prompts twice, with other dimensions."""
        auxiliary = {**(self.auxiliary or {}), **(other.auxiliary or {})} or None
        if self.dimensions is None or other.dimensions is None:
            return Asked(self.prompt, auxiliary)
        return Asked(self.prompt, auxiliary, (*self.dimensions, *other.dimensions))


def read_prompts(path: Place, names: Sequence[str]) -> dict[str, Asked]:
    """What was asked for by clip, from a file of JSON lines, or of one JSON list.

    A line is {"name": ..., "prompt": ...}; "video" may stand for "name", and "prompt_en" for "prompt". Without names
    the lines belong to the clips in the order of these, or, where "prompt_en" says that they are VBench's, to the clips
    called "PROMPT" or "PROMPT-NUMBER". "auxiliary_info" and "dimension" are what VBench's own file holds.
    Raises: KinemaError, one sentence, when a line is broken, a name stands twice, or lines and clips do not fit.
    """
    rows = [_row(data, f"{where} of {path}") for where, data in read_lines(path)]
    if rows and not any(name for name, _, _ in rows):
        if all(vbench for _, _, vbench in rows):
            return _by_prompt([asked for _, asked, _ in rows], names, path)
        if len(rows) != len(names):
            raise KinemaError(
                f'{path} has {len(rows)} prompts without names for {len(names)} clips; give each line a "name"'
            )
        return dict(zip(names, (asked for _, asked, _ in rows), strict=True))
    return _by_name([(name, asked) for name, asked, _ in rows], names, path)


def read_lines(path: Place) -> list[tuple[str, Any]]:
    """The objects of a file of JSON lines, or of one JSON list, each with where it stands; None for what is no JSON.

    Raises: KinemaError, one sentence, when the file cannot be read or is no text.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")  # Windows begins a file with a mark
    except OSError as error:
        raise KinemaError(f"cannot read {path}: {reason(error)}") from error
    except ValueError as error:
        raise KinemaError(f"{path} is not UTF-8 text; give a line of JSON for each clip") from error
    try:
        whole = json.loads(text)
        if isinstance(whole, list):
            return [(f"entry {number}", data) for number, data in enumerate(whole, 1)]
    except (ValueError, RecursionError):
        pass
    found: list[tuple[str, Any]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                found.append((f"line {number}", json.loads(line)))
            except (ValueError, RecursionError):
                found.append((f"line {number}", None))
    return found


def _row(data: Any, where: str) -> tuple[str | None, Asked, bool]:
    """Name, what was asked for, and whether it is in VBench's form."""
    key = "prompt_en" if isinstance(data, dict) and "prompt" not in data else "prompt"
    if not isinstance(data, dict) or not isinstance(data.get(key), str) or not data[key].strip():
        raise KinemaError(f'{where} is no JSON object with a "prompt"')
    if data[key] != whole(data[key]):
        raise KinemaError(f"{where} has a prompt with half a character, a \\ud... without its partner; write it whole")
    name = data.get("name", data.get("video"))
    if name is not None and not isinstance(name, str):
        raise KinemaError(f"{where} has a name that is no text")
    auxiliary = data.get("auxiliary_info")
    if auxiliary is not None and not (
        isinstance(auxiliary, dict) and all(isinstance(told, dict) for told in auxiliary.values())
    ):
        raise KinemaError(f'{where} has an "auxiliary_info" that is not {{"DIMENSION": {{...}}}}')
    dimensions = data.get("dimension")
    if dimensions is not None and not (isinstance(dimensions, list) and all(isinstance(d, str) for d in dimensions)):
        raise KinemaError(f'{where} has a "dimension" that is no list of names')
    asked = Asked(data[key], auxiliary, None if dimensions is None else tuple(dimensions))
    return name, asked, key == "prompt_en"


def _by_name(rows: Sequence[tuple[str | None, Asked]], names: Sequence[str], path: Place) -> dict[str, Asked]:
    found: dict[str, Asked] = {}
    for name, asked in rows:
        if name is None:
            raise KinemaError(f'some lines of {path} have a "name" and some have none; give all of them one, or none')
        bare = name if name in names or not name.lower().endswith(VIDEOS) else str(PurePosixPath(name).with_suffix(""))
        if bare in found:
            raise KinemaError(f"{path} names {name!r} twice; give each clip one prompt")
        found[bare] = asked
    if not rows:
        raise KinemaError(f"{path} holds no prompt; give a line of JSON for each clip")
    if not {*names} & {*found}:
        raise KinemaError(f"{path} names none of the clips; it has {rows[0][0]!r}, and they are like {names[0]!r}")
    return found


def _by_prompt(asked: Sequence[Asked], names: Sequence[str], path: Place) -> dict[str, Asked]:
    """VBench's clips are called after their prompts: "a red bicycle-0.mp4"."""
    known: dict[str, Asked] = {}
    for each in asked:
        known[each.prompt] = known[each.prompt].and_(each) if each.prompt in known else each
    found = {}
    for name in names:
        last = name.rpartition("/")[2]
        mine = known.get(re.sub(r"-\d+$", "", last)) or known.get(last)
        if mine is not None:
            found[name] = mine
    if not found:
        raise KinemaError(
            f"{path} has the prompt of none of the clips; call them like '{asked[0].prompt}-0', not {names[0]!r}"
        )
    return found
