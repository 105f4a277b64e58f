"""Which clips lie in a folder, how large they are, and what was asked for."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from kinema import recipe
from kinema.core.errors import KinemaError
from kinema.files import reason
from kinema.formats import FOLDER_CARD, check_memory, cut_short, parse_metadata
from kinema.video import PICTURES, Video

VIDEOS = (".mp4", ".webm", ".gif", ".mkv", ".mov")
PLAN = "plan.json"  # with JOURNAL in a folder: it is an evaluation, and its thumbnails are no clips
JOURNAL = "clips.jsonl"


@dataclass(frozen=True)
class Source:
    """A clip on the disk: a video, or a folder of pictures."""

    name: str  # path in its folder, without extension
    path: Path
    size: int  # bytes on the disk
    changed: int  # time of the last change, ns

    @property
    def mark(self) -> list[int]:
        """Tells whether the clip is still the same."""
        return [self.size, self.changed]


@dataclass(frozen=True)
class Header:
    """What a file says of itself before anything is decoded."""

    shape: tuple[int, int, int] | None  # frames, rows, columns, where it says so
    metadata: dict[str, Any]
    sound: bool


def find_clips(folder: str | os.PathLike[str]) -> list[Source]:
    """All clips under a folder by name: videos, and each folder that holds nothing but pictures.

    Names that differ by their extension only keep it.
    Raises: KinemaError when there is no such folder, it cannot be read, or it holds no clip.
    """
    root = Path(folder).resolve()
    if not root.is_dir():
        there = root.exists()
        raise KinemaError(f"{folder} is a file; name the folder it is in" if there else f"there is no folder {folder}")
    paths = list(_paths(root))
    if not paths:
        raise KinemaError(f"{folder} holds no clip ({', '.join(VIDEOS)}, or a folder of pictures)")
    bare = [path if path.is_dir() else path.with_suffix("") for path in paths]
    often = Counter(bare)
    names = [path if often[short] > 1 else short for path, short in zip(paths, bare, strict=True)]
    found = [Source(_name(name, root), path, *_stat(path)) for name, path in zip(names, paths, strict=True)]
    return sorted(found, key=lambda source: source.name)


def _paths(root: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> NoReturn:
        raise KinemaError(f"cannot read the folder {error.filename}: {reason(error)}")

    for here, folders, files in os.walk(root, onerror=refuse):
        if PLAN in files and JOURNAL in files:
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        shown = [name for name in files if not name.startswith(".")]
        videos = [name for name in shown if name.lower().endswith(VIDEOS)]
        yield from (Path(here) / name for name in videos)
        if not videos and not folders and any(name.lower().endswith(PICTURES) for name in shown):
            yield Path(here)


def _name(path: Path, root: Path) -> str:
    """A name that can be written in any file; bytes that are no UTF-8 are spelt out, as \\xff."""
    text = root.name if path == root else path.relative_to(root).as_posix()
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _stat(path: Path) -> tuple[int, int]:
    """Bytes and time of the last change, of a folder those of what it holds; zeros where a link leads nowhere."""
    try:
        stats = [entry.stat() for entry in os.scandir(path)] if path.is_dir() else [path.stat()]
    except OSError:
        return 0, 0
    return sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0)


def read_header(path: Path) -> Header:
    """Size, metadata and whether there is sound. Raises: KinemaError when the file is empty, missing or broken."""
    try:
        if path.is_dir():
            return _folder_header(path)
        if not path.is_file():
            raise KinemaError("there is no such file" if not path.exists() else "it is no plain file")
        if not path.stat().st_size:
            raise KinemaError("the file is empty")
        return _gif_header(path) if path.suffix.lower() == ".gif" else _container_header(path)
    except OSError as error:
        raise KinemaError(f"it cannot be read: {reason(error)}") from error


def _container_header(path: Path) -> Header:
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise KinemaError("it holds no video")
            stream = container.streams.video[0]
            count = stream.frames
            if not count and container.duration and stream.average_rate:
                count = round(container.duration / av.time_base * float(stream.average_rate))
            if cut := cut_short(stream, path):
                raise KinemaError(f"the file is {cut}")
            metadata = parse_metadata(container.metadata.get("comment") or container.metadata.get("COMMENT"))
            return Header((count, stream.height, stream.width), metadata, bool(container.streams.audio))
    except av.FFmpegError as error:
        raise KinemaError("it is not a video that can be read, or it is broken") from error


def _gif_header(path: Path) -> Header:
    from PIL import Image

    try:
        with Image.open(path) as gif:
            card = parse_metadata(gif.info.get("comment", b"").decode("utf-8", "replace"))
            inner = card.get("metadata")
            shape = (getattr(gif, "n_frames", 1), gif.height, gif.width)
            return Header(shape, inner if isinstance(inner, dict) else card, False)
    except Exception as error:  # Pillow raises many kinds for broken files; each means the same to the user
        raise KinemaError("it is not a gif that can be read, or it is broken") from error


def _folder_header(path: Path) -> Header:
    from PIL import Image

    pictures = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES and not p.name.startswith("."))
    metadata: dict[str, Any] = {}
    try:
        with Image.open(pictures[0]) as first:
            shape = (len(pictures), first.height, first.width)
        if (path / FOLDER_CARD).is_file():
            card = json.loads((path / FOLDER_CARD).read_text(encoding="utf-8"))
            metadata = dict(card.get("metadata", {}))
    except Exception as error:  # as above
        raise KinemaError(f"{pictures[0].name} or {FOLDER_CARD} cannot be read") from error
    return Header(shape, metadata, (path / "sound.wav").is_file())


def load(path: Path, max_bytes: int) -> Video:
    """The clip, decoded. What it needs is read from its header first and watched while it is decoded.

    Raises: KinemaError, one sentence without the path, when it is broken or cut short, or too large.
    """
    header = read_header(path)
    try:
        if header.shape is not None:
            check_memory(*header.shape, path, max_bytes)
        return Video.load(path, max_bytes)
    except KinemaError as error:
        raise KinemaError(str(error).replace(f"{path}{os.sep}", "").replace(str(path), "it")) from error


def whole(text: str) -> str:
    """The text with question marks for halves of characters, as "\\ud800" in JSON: no file can hold those."""
    return text.encode("utf-8", "replace").decode("utf-8")


def prompt_of(path: Path, metadata: dict[str, Any]) -> str | None:
    """What a clip says it was made from: the recipe in it or beside it, or the caption beside it; None for neither."""
    told = [metadata]
    beside = path.with_suffix(".json")
    if path.is_file() and beside.is_file():
        try:
            data = json.loads(beside.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            data = None
        told += [data] if isinstance(data, dict) else []
    for card in told:
        asked = recipe.asked(card[recipe.KEY]) if recipe.KEY in card else card.get("caption")
        if isinstance(asked, str) and asked.strip():
            return whole(asked)
    return None
