"""A timeline from a file: a text as one writes it on the command line, or YAML.

YAML is a list of events, each with start, end and text, and a camera if it moves:

    - start: 0          # seconds, or 0f (frames), or 0% of the video
      end: 3
      text: a red ball rolls to the left
      camera: the camera pans to the left

Every error names file, line and column.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from kinema.core.errors import KinemaError
from kinema.timeline.events import Event, Order, Timeline, Unit
from kinema.timeline.reading import AT_ONCE, EXACT, LONGEST, NAMES, is_timed, range_in

YAML, TEXT = (".yaml", ".yml"), (".txt",)
KINDS = "name a .yaml, .yml or .txt file, or write the events, as in '0-3s: text | 3-6s: text'"
WRITTEN = "write it as in '0-3s: text | 3-6s: text'"
LIKE_FILE = re.compile(r"\S*\.[a-z]\w{1,4}|[^\n|]*\.(?:ya?ml|txt)", re.IGNORECASE)
NEEDED, KNOWN = ("start", "end", "text"), ("start", "end", "text", "camera")
TIME = re.compile(rf"({EXACT})\s*([sf%]?)")
NAMES_CAMERA = re.compile(r"\b(?:camera|shot)\b", re.IGNORECASE)


def given(value: str | os.PathLike[str] | Timeline) -> Timeline:
    """The timeline that a user gives: one that is read already, a text, or the path of a text or YAML file.

    Raises: KinemaError, one sentence with the place, for one that cannot be read or has no times.
    """
    if isinstance(value, os.PathLike) or (isinstance(value, str) and _names_file(value)):
        return from_file(value)
    if not isinstance(value, str | Timeline):
        raise KinemaError(f"timeline is {value!r}; give a text, a path or a kinema.Timeline")
    if isinstance(value, str) and not value.strip():
        raise KinemaError(f"the timeline is empty; {WRITTEN}")
    return _with_times(value if isinstance(value, Timeline) else Timeline.parse(value))


def _with_times(timeline: Timeline, name: str = "") -> Timeline:
    if not timeline.timed:
        raise KinemaError(f"{name}column 1: the timeline says no times; {WRITTEN}")
    return timeline


def _names_file(value: str) -> bool:
    """Whether a text is the name of a file, there or not, and says no events."""
    return not is_timed(value) and (LIKE_FILE.fullmatch(value) is not None or os.path.exists(value))


def from_file(path: str | os.PathLike[str]) -> Timeline:
    """The timeline in a text or a YAML file. Raises: KinemaError, one sentence with line and column."""
    from kinema.files import reason

    path, name = Path(path), os.fspath(path)
    if os.path.isdir(path):
        raise KinemaError(f"the timeline {name} is a folder; {KINDS}")
    if path.suffix.lower() not in (*YAML, *TEXT):
        raise KinemaError(f"the timeline {name} is no text file; {KINDS}")
    try:
        size = path.stat().st_size
        text = path.read_text(encoding="utf-8-sig") if size <= LONGEST else ""
    except OSError as error:
        raise KinemaError(f"cannot read {name}: {reason(error)}") from error
    except UnicodeDecodeError as error:
        raise KinemaError(f"cannot read {name}: it is no text in UTF-8") from error
    except ValueError as error:
        raise KinemaError(f"cannot read {name!r}: no file has such a name") from error
    if size > LONGEST:
        raise KinemaError(f"the timeline {name} has {size} bytes; use at most {LONGEST}")
    if path.suffix.lower() in YAML:
        return from_yaml(text, name)
    if not text.strip():
        raise KinemaError(f"the timeline {name} is empty; {WRITTEN}")
    try:
        timeline = Timeline.parse(text)
    except KinemaError as error:
        raise KinemaError(f"{name}, {error}") from None
    return _with_times(timeline, f"{name}, ")


def from_yaml(text: str, name: str = "timeline") -> Timeline:
    """The timeline in a YAML text; `name` is what errors call it. Raises: KinemaError."""
    root = _composed(text, name)
    if root is None or root.id != "sequence" or not root.value:
        where = name if root is None else _place(name, root)
        raise KinemaError(f"{where}: expected a list of events, each with {', '.join(NEEDED)}")
    events: list[Event] = []
    unit: Unit | None = None
    order = Order()
    for node in root.value:
        fields = _fields(node, name)
        end, its = _time(fields["end"], "end", name, unit="s")
        start, other = _time(fields["start"], "start", name, unit=its)
        for which, one in (("start", other), ("end", its)):
            if unit not in (None, one):
                place = _place(name, fields[which])
                raise KinemaError(f"{place}: {which} is in {NAMES[one]}, the time ahead in {NAMES[unit]}; use one")
            unit = one
        said = " ".join(fields["text"].value.split())
        at_once = AT_ONCE.match(said) if events else None
        said = said[at_once.end() :] if at_once else said
        if range_in(said) is not None:
            raise KinemaError(f"{_place(name, fields['text'])}: text holds a range of times; give it as start and end")
        if not said:
            raise KinemaError(f"{_place(name, fields['text'])}: text is empty; say what happens")
        said = _with_camera(said, fields.get("camera"), name)
        try:
            events.append(Event(text=said, start=start, end=end, meanwhile=at_once is not None))
        except KinemaError as error:
            raise KinemaError(f"{_place(name, node)}: {error}") from None
        if (wrong := order.fault(events[-1], cast(Unit, unit))) is not None:
            raise KinemaError(f"{_place(name, fields['start'])}: {wrong}")
    return Timeline(tuple(events), cast(Unit, unit))


def _composed(text: str, name: str) -> Any:
    """The nodes of a YAML text, which know their places; None for an empty one."""
    import yaml

    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}, line {mark.line + 1}, column {mark.column + 1}" if mark else name
        raise KinemaError(f"{where}: {error.problem or 'it is no YAML'}") from None
    except (yaml.YAMLError, RecursionError, ValueError):
        raise KinemaError(f"{name}: it is no YAML that can be read") from None


def _fields(node: Any, name: str) -> Mapping[str, Any]:
    """The fields of one event, by name."""
    if node.id != "mapping":
        raise KinemaError(f"{_place(name, node)}: expected an event with {', '.join(NEEDED)}, as in 'start: 0'")
    fields: dict[str, Any] = {}
    for key, value in node.value:
        word = key.value if key.id == "scalar" else None
        if word not in KNOWN:
            raise KinemaError(f"{_place(name, key)}: an event has no field {word!r}; it has {', '.join(KNOWN)}")
        if word in fields:
            raise KinemaError(f"{_place(name, key)}: {word} is given twice; give it once")
        if value.id != "scalar":
            raise KinemaError(f"{_place(name, value)}: {word} is no text and no number; write it on one line")
        if word in ("text", "camera") and value.value.strip() and value.tag != "tag:yaml.org,2002:str":
            raise KinemaError(f"{_place(name, value)}: {word} is {value.value[:20]!r}, no text; put it in quotes")
        fields[word] = value
    for word in NEEDED:
        if word not in fields:
            raise KinemaError(f"{_place(name, node)}: the event has no {word}; it needs {', '.join(NEEDED)}")
    return fields


def _time(node: Any, which: str, name: str, unit: Unit) -> tuple[float, Unit]:
    """A time and its unit, which is `unit` where it is not written."""
    found = TIME.fullmatch(node.value.strip())
    if found is None:
        raise KinemaError(f"{_place(name, node)}: {which} is {node.value[:20]!r}; use seconds (3), 24f or 25%")
    return float(found[1]), cast(Unit, found[2] or unit)


def _with_camera(text: str, node: Any, name: str) -> str:
    """What happens and how the camera moves, in one text."""
    if node is None:
        return text
    camera = " ".join(node.value.split())
    if not NAMES_CAMERA.search(camera):
        raise KinemaError(
            f"{_place(name, node)}: camera is {camera[:40]!r}; write what it does, as in 'the camera pans left'"
        )
    return f"{text.rstrip('.,; ')}, {camera}"


def _place(name: str, node: Any) -> str:
    return f"{name}, line {node.start_mark.line + 1}, column {node.start_mark.column + 1}"
