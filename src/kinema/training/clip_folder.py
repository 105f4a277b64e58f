"""A folder of somebody's own clips: what lies in it and what each clip is said to show, before anything is decoded.

A clip is a video, a picture (a clip of one frame), or a folder of frames that has a caption as a whole. The caption of
`walk.mp4`, `walk.png` or the folder `walk` stands in `walk.txt` beside it, or in a line of the one .jsonl file at the
top of the folder, under any of the names that are in use: of diffusers and Hugging Face's video folders ("file_name"
and "text"), finetrainers ("file_name", "caption" or "prompt"), musubi-tuner ("video_path", "image_path" and "caption")
and LTX's trainer ("media_path" and "caption").
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from kinema.core.errors import KinemaError
from kinema.evaluation.clips import VIDEOS, whole
from kinema.evaluation.prompts import read_lines
from kinema.files import reason
from kinema.video import PICTURES

FILES = ("file_name", "video", "video_path", "image", "image_path", "media_path")
CAPTIONS = ("text", "caption", "prompt")


@dataclass(frozen=True)
class CaptionedClip:
    """A clip on the disk and what it shows."""

    name: str  # path in its folder
    path: Path
    caption: str


def find_captioned(folder: str | os.PathLike[str]) -> list[CaptionedClip]:
    """All clips under a folder, by name; hidden files and folders are left out.

    Raises: KinemaError, one sentence, where there is no clip, a clip has no caption or two, a caption no clip, or a
    line names a place outside the folder.
    """
    root = Path(os.path.abspath(folder))
    if not root.is_dir():
        there = root.exists()
        raise KinemaError(f"{folder} is a file; name the folder it is in" if there else f"there is no folder {folder}")
    files = sorted(_files(root))
    media = {path for path in files if path.suffix.lower() in (*VIDEOS, *PICTURES)}
    if not media:
        raise KinemaError(f"{folder} holds no clip; it takes {', '.join((*VIDEOS, *PICTURES))} and folders of pictures")
    tables = [path for path in files if path.parent == root and path.suffix.lower() == ".jsonl"]
    captions = _table(root, tables, media)
    for path in files:
        if path.suffix.lower() == ".txt":
            clip = _captioned_by(path, media, root)
            if clip in captions:
                raise KinemaError(f"{_name(clip, root)} has a caption in {path.name} and one in a .jsonl; leave one")
            captions[clip] = _text(path)
    folders = {path for path in captions if path not in media}
    bare = [path for path in sorted(media) if path not in captions and path.parent not in folders]
    if bare:
        name = _name(bare[0], root)
        others = f" (nor have {len(bare) - 1} others)" if len(bare) > 1 else ""
        beside = f"{Path(name).stem}.txt"
        raise KinemaError(f"{name} has no caption{others}; write {beside} beside it, or a line in a .jsonl")
    found = [CaptionedClip(_name(path, root), path, caption) for path, caption in captions.items()]
    return sorted(found, key=lambda clip: clip.name)


def _files(root: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> NoReturn:
        raise KinemaError(f"cannot read the folder {error.filename}: {reason(error)}")

    for here, folders, files in os.walk(root, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(here) / name for name in files if not name.startswith("."))


def _name(path: Path, root: Path) -> str:
    return whole(path.relative_to(root).as_posix())


def _captioned_by(path: Path, media: set[Path], root: Path) -> Path:
    """The clip whose caption is in a .txt file."""
    bare = path.with_suffix("")
    found = [clip for clip in sorted(media) if clip.with_suffix("") == bare]
    found += [bare] if _is_frames(bare, media) else []
    if not found:
        raise KinemaError(f"{_name(path, root)} is a caption without a clip; put the clip beside it, or take it out")
    if len(found) > 1:
        both = " and ".join(clip.name for clip in found[:2])
        raise KinemaError(f"{_name(path, root)} could be the caption of {both}; give them different names")
    return found[0]


def _is_frames(path: Path, media: set[Path]) -> bool:
    return any(clip.parent == path and clip.suffix.lower() in PICTURES for clip in media)


def _text(path: Path) -> str:
    try:
        text = " ".join(path.read_text(encoding="utf-8-sig").split())
    except OSError as error:
        raise KinemaError(f"cannot read {path}: {reason(error)}") from error
    except ValueError as error:
        raise KinemaError(f"{path} is not UTF-8 text; write the caption as plain text") from error
    if not text:
        raise KinemaError(f"{path} is empty; write what the clip shows")
    return text


def _table(root: Path, files: Sequence[Path], media: set[Path]) -> dict[Path, str]:
    """Captions by clip from the .jsonl file of a folder."""
    if len(files) > 1:
        raise KinemaError(f"{root} holds {files[0].name} and {files[1].name}; leave one .jsonl with all captions")
    captions: dict[Path, str] = {}
    for line, data in read_lines(files[0]) if files else ():
        where = f"{line} of {files[0].name}"
        name, caption = _row(data, where)
        path = Path(os.path.normpath(root / name))
        if not path.is_relative_to(root) or path == root:
            raise KinemaError(f"{where} names {name!r}, which is outside the folder {root}; put the clip into it")
        if path in captions:
            raise KinemaError(f"{where} names {name!r}, which has a line before; give each clip one caption")
        if path not in media and not _is_frames(path, media):
            raise KinemaError(f"{where} names {name!r}, and there is no such video, picture or folder of pictures")
        captions[path] = caption
    return captions


def _row(data: Any, where: str) -> tuple[str, str]:
    """Path and caption of a line."""
    row = data if isinstance(data, dict) else {}
    name = next((row[key] for key in FILES if isinstance(row.get(key), str) and row[key]), None)
    caption = next((row[key] for key in CAPTIONS if isinstance(row.get(key), str) and row[key].strip()), None)
    if name is None or caption is None:
        lacking, keys = ("clip", FILES) if name is None else ("caption", CAPTIONS)
        raise KinemaError(f"{where} is no JSON object with a {lacking} ({', '.join(keys)})")
    return name, " ".join(whole(caption).split())
