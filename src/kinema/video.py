"""Video: frames, frames per second and optional sound; reading and writing mp4, webm, gif and folders of pictures."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kinema import lettering
from kinema.core.errors import KinemaError
from kinema.core.footage import Footage
from kinema.core.keep import in_frames
from kinema.files import check_writable, reason, replacing
from kinema.lettering import LINE

if TYPE_CHECKING:
    from PIL import Image

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MOST = 32  # pictures that a sheet shows all of
CONTAINERS = (".mp4", ".webm", ".gif")  # what `Video.save` writes, besides a folder (a path without extension)


@dataclass
class Video(Footage):
    """A clip in memory, as `Footage` is; `metadata` is any JSON object, with the recipe of a generated video under
    "kinema".

    Raises: KinemaError, when a shape, a type or a rate is none of Footage's.
    """

    metadata: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        sound = f", sound at {self.sample_rate} Hz" if self.sound is not None else ""
        return f"Video({in_frames(len(self))} of {self.width}x{self.height}, {self.fps:g} fps{sound})"

    @classmethod
    def load(cls, path: str | os.PathLike[str], max_bytes: int | None = None) -> Video:
        """Read an mp4, webm or any other container FFmpeg knows, a gif, one picture, or a folder of pictures.

        Pictures of a folder are taken in the order of their names. A gif with uneven timing is resampled to the rate
        of its shortest frame. Metadata written by `save` comes back in `metadata`. `max_bytes`: frames held in memory
        at most, 8 GB unless told otherwise.
        Raises: KinemaError, one sentence, when the file is missing, broken, too long or holds no picture.
        """
        from kinema.formats import MAX_BYTES, load_container, load_folder, load_gif

        path, most = Path(path), MAX_BYTES if max_bytes is None else max_bytes
        if not path.exists():
            raise KinemaError(f"there is no file or folder {path}")
        try:
            if path.is_dir():
                return load_folder(path, most)
            if path.suffix.lower() == ".gif":
                return load_gif(path, most)
            if path.suffix.lower() in PICTURES:
                return cls(frames=load_picture(path)[None], fps=1.0)
            return load_container(path, most)
        except OSError as error:
            raise KinemaError(f"cannot read {path}: {reason(error)}") from error

    def save(self, path: str | os.PathLike[str], metadata: dict[str, Any] | None = None) -> Path:
        """Write the video as a whole or not at all; the extension decides: .mp4, .webm, .gif, none for a folder.

        `metadata` (any JSON object, default: the video's own) is kept in the file and read back by `load`. The same
        video gives the same bytes on the same machine. mp4 is H.264 4:2:0, which needs even sizes: an odd row or
        column is repeated once. Sound is left out of gif; in a folder it becomes sound.wav.
        Raises: KinemaError, one sentence, for an unknown extension, a missing folder, no permission, no space.
        """
        from kinema.formats import WRITERS

        path = check_extension(path)
        with replacing(path) as temporary:
            WRITERS[path.suffix.lower()](self, temporary, self.metadata if metadata is None else metadata)
        return path

    def _repr_html_(self) -> str:
        """Notebooks show the video itself."""
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            data = self.save(Path(folder) / "video.mp4").read_bytes()
        source = f"data:video/mp4;base64,{base64.b64encode(data).decode()}"
        width = max(self.width, min(512, 2 * self.width))
        return f'<video controls loop autoplay muted width="{width}" src="{source}"></video>'


def check_extension(path: str | os.PathLike[str]) -> Path:
    """The path, when `Video.save` can write it. Raises: KinemaError for an extension that it does not know, for a
    folder that holds other things than frames, and for a file where a folder was asked for (or the reverse)."""
    from kinema.formats import is_ours

    text, path = os.fspath(path), Path(path)
    suffix = path.suffix.lower()
    if path.name.lower() in CONTAINERS:
        raise KinemaError(f"cannot write {path}: give the file a name before its extension")
    if suffix and suffix not in CONTAINERS:
        raise KinemaError(f"cannot write {path}: use .mp4, .webm or .gif, or a folder (a name without extension)")
    if not path.name or (text.endswith(os.sep) and suffix):
        raise KinemaError(f"cannot write {text}: give a file name, or a folder name without a dot")
    check_writable(path)
    if suffix and path.is_dir():
        raise KinemaError(f"cannot write {path}: it is a folder")
    if not suffix and path.exists() and not path.is_dir():
        raise KinemaError(f"cannot write {path}: it is a file; name a folder, or add .mp4, .webm or .gif")
    if not suffix and path.is_dir():
        other = [p.name for p in sorted(path.iterdir()) if not is_ours(p)]
        if other:
            raise KinemaError(f"cannot write {path}: the folder holds other things ({other[0]}); name a new folder")
    return path


def load_picture(path: str | os.PathLike[str]) -> np.ndarray:
    """One picture as (H, W, 3) uint8, upright as its camera says; transparent parts become black.

    Raises: KinemaError, one sentence, when the file is missing or is not a picture.
    """
    from PIL import Image

    from kinema.pictures import upright

    path = Path(path)
    if not path.is_file():
        raise KinemaError(f"there is no picture {path}" if not path.exists() else f"{path} is a folder, not a picture")
    try:
        with Image.open(path) as opened:
            return np.asarray(upright(opened))
    except Exception as error:  # Pillow raises many kinds for broken files; each means the same to the user
        raise KinemaError(f"{path} is not a picture that can be read") from error


def open_clip(source: str | os.PathLike[str], what: str = "video") -> np.ndarray:
    """The frames (T, H, W, 3) uint8 of a video, a folder of pictures, or a `data:` address of an animated PNG.

    `what` names the field in errors. Raises: KinemaError, one sentence, when it is not there or cannot be read.
    """
    from PIL import ImageSequence, UnidentifiedImageError

    from kinema.pictures import opened

    if not str(source).startswith("data:"):
        return Video.load(source).frames
    try:
        with opened(str(source)) as pictures:
            return np.stack([np.asarray(picture.convert("RGB")) for picture in ImageSequence.Iterator(pictures)])
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise KinemaError(f"{what} is a data: address that holds no pictures; use an animated PNG") from error


def clip_address(frames: np.ndarray) -> str:
    """Frames (T, H, W, 3) uint8 as a `data:` address of an animated PNG, which keeps every bit."""
    from PIL import Image

    from kinema.pictures import DATA

    first, *rest = (Image.fromarray(frame) for frame in frames)
    data = io.BytesIO()
    first.save(data, format="PNG", save_all=True, append_images=rest)
    return DATA + base64.b64encode(data.getvalue()).decode("ascii")


def _columns(count: int, shape: float) -> int:
    """Columns of a sheet a little wider than high, near which the last row is fullest; `shape` is height by width."""
    wish = max(1, int(np.ceil(np.sqrt(count * shape * 1.4))))
    near = range(max(1, wish - 1), wish + 2)
    return min(near, key=lambda columns: (-count % columns, abs(columns - wish)))


def contact_sheet(
    video: Video, columns: int | None = None, count: int | None = None, cell: int | None = None, says: str = ""
) -> Image.Image:
    """Pictures of a video side by side, each with its time in seconds, and a line below that says something of it.

    `columns` and `count` are counts: so many pictures are evenly spread, first and last included. Left out it is all of
    a clip of at most 32 frames, else every second, third ... one. `cell` is the longer side of one picture in pixels
    (default: between 128 and 256, near the video's own size).
    Raises: KinemaError when a number is below 1.
    """
    from PIL import Image

    for name, value in (("columns", columns), ("count", count), ("cell", cell)):
        if value is not None and value < 1:
            raise KinemaError(f"{name} is {value}; use 1 or more")
    if count is None:
        picked = np.arange(0, len(video), -(-len(video) // MOST))
    else:
        picked = np.linspace(0, len(video) - 1, min(len(video), count)).round().astype(int)
    columns = min(len(picked), columns or _columns(len(picked), video.height / video.width))
    cell = cell or int(np.clip(max(video.height, video.width), 128, 256))
    scale = cell / max(video.height, video.width)
    width, height = max(1, round(video.width * scale)), max(1, round(video.height * scale))
    gap, rows = 4, -(-len(picked) // columns)
    across, row = columns * (width + gap) + gap, height + LINE + gap
    foot = lettering.wrapped(says, across - 2 * gap)
    sheet = Image.new("RGB", (across, rows * row + gap + len(foot) * LINE), (24, 24, 27))
    for place, index in enumerate(picked):
        x, y = gap + (place % columns) * (width + gap), gap + (place // columns) * row
        picture = Image.fromarray(video.frames[index])
        sheet.paste(picture.resize((width, height), Image.Resampling.LANCZOS) if scale != 1 else picture, (x, y))
        lettering.write(sheet, (x + 2, y + height), f"{index / video.fps:.2f} s", (212, 212, 216))
    for i, line in enumerate(foot):
        lettering.write(sheet, (gap, rows * row + gap + i * LINE), line, (150, 150, 158))
    return sheet


def rows_sheet(clips: Sequence[np.ndarray], labels: Sequence[str], columns: int = 6, cell: int = 128) -> Image.Image:
    """A row of `columns` evenly spread frames for each clip (T, H, W, 3) uint8, its label in words above.

    All clips have one size; `cell` is the longer side of a frame on the sheet, pixels.
    """
    from PIL import Image

    count, height, width = clips[0].shape[:3]
    picked = np.linspace(0, count - 1, min(count, columns)).round().astype(int)
    scale = cell / max(height, width)
    h, w, gap = max(1, round(height * scale)), max(1, round(width * scale)), 3
    across = len(picked) * (w + gap) + gap
    texts = [lettering.wrapped(label, across - 2 * gap - 2) for label in labels]
    down = sum(len(lines) * LINE + h + gap for lines in texts) + gap
    sheet, y = Image.new("RGB", (across, down), (24, 24, 27)), gap
    for clip, lines in zip(clips, texts, strict=True):
        for text in lines:
            lettering.write(sheet, (gap + 2, y), text, (212, 212, 216))
            y += LINE
        for column, index in enumerate(picked):
            picture = Image.fromarray(clip[index]).resize((w, h), Image.Resampling.LANCZOS)
            sheet.paste(picture, (gap + column * (w + gap), y))
        y += h + gap
    return sheet
