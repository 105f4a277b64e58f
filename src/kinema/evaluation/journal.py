"""The notes of an evaluation: every finished clip is written down at once, so that it can be ended at any time.

`plan.json` holds the settings, `clips.jsonl` a line for each finished clip, `features/` the features of all clips one
after the other, `strips/` a few frames of each. What a kill cut off half-way is dropped when they are opened again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import sys
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar, overload

import numpy as np

from kinema.core.errors import KinemaError
from kinema.evaluation.clips import JOURNAL, PLAN
from kinema.evaluation.work import Kind, Outcome
from kinema.files import make_folder, write_text

FORMAT = 1
LOCK = "lock"
PRODUCTS = ("results.json", "clips.csv", "report.html")
OURS = (PLAN, JOURNAL, LOCK, "features", "strips", *PRODUCTS)
NONE: dict[str, Any] = {}  # for all that have none
T = TypeVar("T")


@dataclass(slots=True)
class Record:
    """A finished clip, without what lies in other files. It is small: there may be a million of them."""

    mark: list[Any]  # what the clip was when it was measured
    failed: str | None = None
    prompt: str | None = None
    shape: tuple[int, int, int] | None = None
    fps: float | None = None
    labels: tuple[str, ...] = ()  # metrics; clips with the same ones share it, and `lacks` and `errors` as well
    numbers: array[float] = field(default_factory=lambda: array("d"))  # of each label; NaN where there is none
    lacks: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    rows: dict[str, tuple[int, int, int]] = field(default_factory=dict)  # of features: first, count, width


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps a second evaluation out of the folder; the lock of a process that has ended does not count.

    Raises: KinemaError when another evaluation is at work there.
    """
    with open(folder / LOCK, "a+", encoding="ascii") as file:
        try:
            import fcntl
        except ImportError:  # not a Unix: nothing keeps a second one out
            yield
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            who = file.read().strip()
            raise KinemaError(
                f"another evaluation{f' (process {who})' if who else ''} is at work in {folder}; name another --out"
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def settle(folder: Path, settings: dict[str, Any], restart: bool = False) -> None:
    """Makes the folder ready for an evaluation with these settings, or for going on with one.

    Raises: KinemaError when it holds other things, or an evaluation with other settings and `restart` is not set.
    """
    make_folder(folder)
    others = [p.name for p in sorted(folder.iterdir()) if p.name not in OURS and not p.name.startswith(".")]
    if others and not (folder / PLAN).exists():
        raise KinemaError(f"the folder {folder} holds other things ({others[0]}); name a new one with --out")
    with locked(folder):
        before = None if restart else _read_plan(folder / PLAN)
        if before is not None and before != settings:
            raise KinemaError(
                f"{folder} holds an evaluation with other settings ({_difference(before, settings)}); "
                "name another --out, or begin anew with --restart"
            )
        if before is None:
            clear(folder)
            write_text(folder / PLAN, json.dumps({"format": FORMAT, "settings": settings}, indent=1) + "\n")


def clear(folder: Path) -> None:
    """Removes what an evaluation wrote, and nothing else."""
    for name in OURS:
        path = folder / name
        if name == LOCK:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _read_plan(path: Path) -> dict[str, Any] | None:
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(plan, dict) or not isinstance(plan.get("settings"), dict):
            raise ValueError("it is no plan")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise KinemaError(f"{path} cannot be read; begin anew with --restart") from error
    found: dict[str, Any] = plan.get("settings", {}) if plan.get("format") == FORMAT else {"format": plan.get("format")}
    return found


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if isinstance(old, list) and isinstance(new, list):
            told = [f"{x} is new" for x in new if x not in old] + [f"{x} was there before" for x in old if x not in new]
            return f"{name}: {', '.join(told[:3])}{f' and {len(told) - 3} more' if len(told) > 3 else ''}"
        return f"{name} was {old} and is {new}"
    raise AssertionError("the settings are the same")


class Journal:
    """The notes of one evaluation, opened for reading and going on. Use it under `locked`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records: dict[tuple[Kind, str], Record] = {}
        (folder / "features").mkdir(exist_ok=True)
        (folder / "strips").mkdir(exist_ok=True)
        self._ends: dict[str, int] = {}  # rows of each file of features
        self._files: dict[str, IO[bytes]] = {}
        self._shared: dict[Any, Any] = {}
        self._read()
        self._lines = open(folder / JOURNAL, "ab")  # noqa: SIM115

    def _read(self) -> None:
        path = self.folder / JOURNAL
        whole = 0
        if path.exists():
            with open(path, "rb") as lines:
                for line in lines:
                    if not line.endswith(b"\n") or not self._take(line):
                        break
                    whole += len(line)
            os.truncate(path, whole)
        for file in (self.folder / "features").iterdir():
            width = next((r.rows[file.stem][2] for r in self.records.values() if file.stem in r.rows), 0)
            os.truncate(file, 4 * width * self._ends.get(file.stem, 0))

    def _take(self, line: bytes) -> bool:
        """Remembers a line; False when it is damaged, or the features that it tells of are not all there."""
        try:
            data = json.loads(line)
            kind: Kind = data.pop("kind")
            name: str = data.pop("name")
            record = self._record(**data)
        except (ValueError, TypeError, KeyError, AttributeError):
            return False
        for key, (first, count, width) in record.rows.items():
            path = self._feature_path(key)
            if not path.exists() or path.stat().st_size < 4 * width * (first + count):
                return False
        for key, (first, count, _) in record.rows.items():
            self._ends[key] = max(self._ends.get(key, 0), first + count)
        self.records[kind, name] = record
        return True

    def add(self, done: Outcome, mark: list[Any]) -> None:
        """Writes a finished clip down: frames to show and features first, then its line."""
        rows = {}
        for what, features in done.features.items():
            key = _short(f"{what} {done.kind}")
            rows[key] = self._append(key, features)
        if done.strip is not None:
            self.strip_path(done.name).write_bytes(done.strip)
        told: dict[str, Any] = dict(
            mark=mark, failed=done.failed, prompt=done.prompt, shape=done.shape, fps=done.fps,
            values=done.values, lacks=done.lacks, errors=done.errors, rows=rows,
        )  # fmt: skip
        line = json.dumps({"kind": done.kind, "name": done.name, **told})
        self._lines.write(line.encode("ascii") + b"\n")
        self._lines.flush()
        self.records[done.kind, done.name] = self._record(**told)

    def _record(
        self, *, values: dict[str, float | None], lacks: dict[str, str], errors: dict[str, str],
        rows: dict[str, Sequence[int]], shape: Any, **told: Any,
    ) -> Record:  # fmt: skip
        numbers = array("d", (math.nan if value is None else value for value in values.values()))
        spans: dict[str, Any] = {sys.intern(key): tuple(span) for key, span in rows.items()}
        return Record(
            shape=shape and self._once(tuple(shape)), labels=self._once(tuple(values)), numbers=numbers,
            lacks=self._once(lacks), errors=self._once(errors), rows=spans or NONE, **told,
        )  # fmt: skip

    def _once(self, value: T) -> T:
        """The same object for all equal ones, instead of a copy for every clip."""
        key = tuple(value.items()) if isinstance(value, dict) else value
        found: T = self._shared.setdefault((type(value), key), value)
        return found

    def column(self, label: str, names: Sequence[str]) -> np.ndarray:
        """The numbers of a metric for clips in the order of `names`; NaN where there is none."""
        places: dict[int, int | None] = {}  # of the label, in each tuple of labels that clips share
        found = np.full(len(names), math.nan)
        for index, name in enumerate(names):
            record = self.records["clip", name]
            key = id(record.labels)
            if key not in places:
                places[key] = record.labels.index(label) if label in record.labels else None
            place = places[key]
            if place is not None:
                found[index] = record.numbers[place]
        return found

    def _append(self, key: str, features: np.ndarray) -> tuple[int, int, int]:
        file = self._files.get(key)
        if file is None:
            file = self._files[key] = open(self._feature_path(key), "ab")  # noqa: SIM115
        count, width = features.shape
        first = self._ends.get(key, 0)
        file.write(np.ascontiguousarray(features, "<f4").tobytes())
        file.flush()
        self._ends[key] = first + count
        return first, count, width

    def features(self, what: str, kind: Kind, names: Sequence[str]) -> Rows:
        """Features of clips in the order of `names`, read from the disk when they are asked for."""
        key = _short(f"{what} {kind}")
        spans = [self.records[kind, name].rows[key] for name in names]
        return Rows(self._feature_path(key), spans, flat=not what.endswith("/frames"))

    def strip_path(self, name: str) -> Path:
        """Where the frames of a clip are kept."""
        return self.folder / "strips" / f"{_short(name)}.jpg"

    def _feature_path(self, key: str) -> Path:
        return self.folder / "features" / f"{key}.f32"

    def close(self) -> None:
        for file in (self._lines, *self._files.values()):
            file.close()


def _short(text: str) -> str:
    """A file name for any text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Rows(Sequence[np.ndarray]):
    """Features of clips on the disk: of each (D,), or (T, D) where every frame has a row; float32."""

    def __init__(self, path: Path, spans: Sequence[tuple[int, int, int]], flat: bool) -> None:
        widths = {width for _, _, width in spans}
        if len(widths) > 1:
            raise KinemaError(f"the clips have features of different lengths ({sorted(widths)}); use clips of one size")
        self._spans, self._flat = list(spans), flat
        self._file = np.memmap(path, "<f4", "r").reshape(-1, widths.pop()) if spans else np.empty((0, 0), np.float32)

    def __len__(self) -> int:
        return len(self._spans)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> list[np.ndarray]: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | list[np.ndarray]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        first, count, _ = self._spans[index]
        rows = np.array(self._file[first : first + count])
        return rows[0] if self._flat else rows
