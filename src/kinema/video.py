"""Video: frames, frames per second and optional sound; reading and writing mp4, webm, gif and folders of pictures."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kinema.core.errors import KinemaError
from kinema.files import reason, replacing

if TYPE_CHECKING:
    from PIL import Image

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
CONTAINERS = (".mp4", ".webm", ".gif")  # what `Video.save` writes, besides a folder (a path without extension)
FOLDER_CARD = "video.json"  # in a folder of frames: fps and metadata
FOLDER_FPS = 8.0  # frames per second of a folder without a card
BT709 = 1  # ISO/IEC 23091-2: primaries, transfer and matrix of HD video all have the number 1


@dataclass
class Video:
    """A clip in memory.

    `frames` is (T, H, W, 3) uint8 sRGB with T at least 1, `fps` is frames per second, `sound` is None, (S,) mono or
    (S, 2) stereo float32 in -1..1 with `sample_rate` samples per second, `metadata` is any JSON object; the recipe of
    a generated video stands there under "kinema".
    Raises: KinemaError, when a shape, a type or a rate is none of these.
    """

    frames: np.ndarray
    fps: float = 8.0
    sound: np.ndarray | None = None
    sample_rate: int = 16000
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.frames = np.asarray(self.frames)
        if self.frames.ndim != 4 or self.frames.shape[-1] != 3 or 0 in self.frames.shape:
            raise KinemaError(f"frames have shape {self.frames.shape}; give (T, H, W, 3) with at least one frame")
        if self.frames.dtype != np.uint8:
            raise KinemaError(f"frames are {self.frames.dtype}; give uint8 in 0..255")
        self.fps = float(self.fps)
        if not 0 < self.fps <= 1000:
            raise KinemaError(f"fps is {self.fps}; use more than 0 and at most 1000")
        if self.sound is not None:
            self.sound = np.asarray(self.sound, dtype=np.float32)
            if self.sound.ndim not in (1, 2) or (self.sound.ndim == 2 and self.sound.shape[1] not in (1, 2)):
                raise KinemaError(f"sound has shape {self.sound.shape}; give (S,) for mono or (S, 2) for stereo")
            if not np.isfinite(self.sound).all():
                raise KinemaError("sound holds values that are not numbers; give float32 in -1..1")
            if not 8000 <= self.sample_rate <= 96000:
                raise KinemaError(f"sample_rate is {self.sample_rate}; use 8000 to 96000 samples per second")

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def height(self) -> int:
        """Rows, pixels."""
        return int(self.frames.shape[1])

    @property
    def width(self) -> int:
        """Columns, pixels."""
        return int(self.frames.shape[2])

    @property
    def seconds(self) -> float:
        """Length of the clip in seconds."""
        return len(self) / self.fps

    def __repr__(self) -> str:
        sound = f", sound at {self.sample_rate} Hz" if self.sound is not None else ""
        return f"Video({len(self)} frames of {self.width}x{self.height}, {self.fps:g} fps{sound})"

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Video:
        """Read an mp4, webm or any other container FFmpeg knows, a gif, one picture, or a folder of pictures.

        Pictures of a folder are taken in the order of their names. A gif with uneven timing is resampled to the rate
        of its shortest frame. Metadata written by `save` comes back in `metadata`.
        Raises: KinemaError, one sentence, when the file is missing, broken or holds no picture.
        """
        path = Path(path)
        if not path.exists():
            raise KinemaError(f"there is no file or folder {path}")
        try:
            if path.is_dir():
                return _load_folder(path)
            if path.suffix.lower() == ".gif":
                return _load_gif(path)
            if path.suffix.lower() in PICTURES:
                return cls(frames=load_picture(path)[None], fps=1.0)
            return _load_container(path)
        except OSError as error:
            raise KinemaError(f"cannot read {path}: {reason(error)}") from error

    def save(self, path: str | os.PathLike[str], metadata: dict[str, Any] | None = None) -> Path:
        """Write the video as a whole or not at all; the extension decides: .mp4, .webm, .gif, none for a folder.

        `metadata` (any JSON object, default: the video's own) is kept in the file and read back by `load`. The same
        video gives the same bytes on the same machine. mp4 is H.264 4:2:0, which needs even sizes: an odd row or
        column is repeated once. Sound is left out of gif; in a folder it becomes sound.wav.
        Raises: KinemaError, one sentence, for an unknown extension, a missing folder, no permission, no space.
        """
        path = check_extension(path)
        metadata = self.metadata if metadata is None else metadata
        writers: dict[str, Callable[[Video, Path, dict[str, Any]], None]] = {
            ".mp4": _save_container,
            ".webm": _save_container,
            ".gif": _save_gif,
            "": _save_folder,
        }
        with replacing(path) as temporary:
            writers[path.suffix.lower()](self, temporary, metadata)
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
    text, path = os.fspath(path), Path(path)
    suffix = path.suffix.lower()
    if suffix and suffix not in CONTAINERS:
        raise KinemaError(f"cannot write {path}: use .mp4, .webm or .gif, or a folder (a name without extension)")
    if not path.name or (text.endswith(os.sep) and suffix):
        raise KinemaError(f"cannot write {text}: give a file name, or a folder name without a dot")
    if suffix and path.is_dir():
        raise KinemaError(f"cannot write {path}: it is a folder")
    if not suffix and path.is_file():
        raise KinemaError(f"cannot write {path}: it is a file; name a folder, or add .mp4, .webm or .gif")
    if not suffix and path.is_dir():
        other = [p.name for p in sorted(path.iterdir()) if not _is_ours(p)]
        if other:
            raise KinemaError(f"cannot write {path}: the folder holds other things ({other[0]}); name a new folder")
    return path


def load_picture(path: str | os.PathLike[str]) -> np.ndarray:
    """One picture as (H, W, 3) uint8, upright as its camera says; transparent parts become black.

    Raises: KinemaError, one sentence, when the file is missing or is not a picture.
    """
    from PIL import Image, ImageOps

    path = Path(path)
    if not path.is_file():
        raise KinemaError(f"there is no picture {path}" if not path.exists() else f"{path} is a folder, not a picture")
    try:
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened)
            if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
                rgba = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
            return np.asarray(picture.convert("RGB"))
    except Exception as error:  # Pillow raises many kinds for broken files; each means the same to the user
        raise KinemaError(f"{path} is not a picture that can be read") from error


def contact_sheet(
    video: Video, columns: int | None = None, count: int | None = None, cell: int | None = None
) -> Image.Image:
    """Pictures of a video side by side, each with its time in seconds.

    `columns` and `count` (pictures, default at most 25, evenly spread, first and last included) are counts, `cell`
    is the longer side of one picture in pixels (default: between 128 and 256, near the video's own size).
    Raises: KinemaError when a number is below 1.
    """
    from PIL import Image, ImageDraw, ImageFont

    for name, value in (("columns", columns), ("count", count), ("cell", cell)):
        if value is not None and value < 1:
            raise KinemaError(f"{name} is {value}; use 1 or more")
    count = min(len(video), count or 25)
    picked = np.linspace(0, len(video) - 1, count).round().astype(int)
    columns = min(count, columns or max(1, int(np.ceil(np.sqrt(count * video.height / video.width * 1.4)))))
    cell = cell or int(np.clip(max(video.height, video.width), 128, 256))
    scale = cell / max(video.height, video.width)
    width, height = max(1, round(video.width * scale)), max(1, round(video.height * scale))
    label, gap = 16, 4
    rows = -(-count // columns)
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + label + gap) + gap), (24, 24, 27))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for place, index in enumerate(picked):
        x = gap + (place % columns) * (width + gap)
        y = gap + (place // columns) * (height + label + gap)
        picture = Image.fromarray(video.frames[index])
        sheet.paste(picture.resize((width, height), Image.Resampling.LANCZOS) if scale != 1 else picture, (x, y))
        draw.text((x + 2, y + height + 1), f"{index / video.fps:.2f} s", fill=(212, 212, 216), font=font)
    return sheet


def _rate(fps: float) -> Fraction:
    return Fraction(fps).limit_denominator(1001)


def _dump(metadata: dict[str, Any]) -> str:
    return json.dumps(metadata, ensure_ascii=True, separators=(",", ":"), sort_keys=True)


def _parse(text: str | None) -> dict[str, Any]:
    """Metadata from a comment: our JSON object, or the comment itself under "comment"."""
    if not text:
        return {}
    try:
        data = json.loads(text)
    except ValueError:
        return {"comment": text}
    return data if isinstance(data, dict) else {"comment": text}


def _save_container(video: Video, path: Path, metadata: dict[str, Any]) -> None:
    """mp4 (H.264, AAC) or webm (VP9, Opus). One encoder thread and bit-exact headers keep the bytes the same."""
    import av

    mp4 = path.suffix.lower() == ".mp4"
    container_options = {"movflags": "+faststart", "fflags": "+bitexact"} if mp4 else {"fflags": "+bitexact"}
    frames = video.frames
    if video.height % 2 or video.width % 2:
        frames = np.pad(frames, ((0, 0), (0, video.height % 2), (0, video.width % 2), (0, 0)), mode="edge")
    with av.open(str(path), "w", format="mp4" if mp4 else "webm", container_options=container_options) as out:
        if metadata:
            out.metadata["comment"] = _dump(metadata)
        stream: Any = out.add_stream("libx264" if mp4 else "libvpx-vp9", rate=_rate(video.fps))
        # x264's macroblock tree reads memory it never wrote at some widths: now and then other bytes come out.
        stream.options = (
            {"crf": "16", "preset": "slow", "x264-params": "mbtree=0"}
            if mp4
            else {"crf": "20", "b": "0", "deadline": "good", "cpu-used": "2", "row-mt": "0"}
        )
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        context = stream.codec_context
        context.thread_count = 1
        context.color_primaries = context.color_trc = context.colorspace = BT709
        context.color_range = 1  # limited, 16..235, what every player expects
        audio: Any = None
        if video.sound is not None and len(video.sound):
            audio = out.add_stream("aac" if mp4 else "libopus", rate=video.sample_rate if mp4 else 48000)
            audio.layout = "stereo" if video.sound.ndim == 2 and video.sound.shape[1] == 2 else "mono"
            audio.codec_context.bit_rate = 160_000
        for index, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=BT709, interpolation="LANCZOS")
            frame.pts, frame.time_base = index, 1 / _rate(video.fps)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if audio is not None:
            _mux_sound(video, out, audio)


def _mux_sound(video: Video, out: Any, stream: Any) -> None:
    import av

    assert video.sound is not None
    samples = video.sound if video.sound.ndim == 2 else video.sound[:, None]
    layout = "stereo" if samples.shape[1] == 2 else "mono"
    source = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T.clip(-1, 1)), format="fltp", layout=layout)
    source.sample_rate, source.pts, source.time_base = video.sample_rate, 0, Fraction(1, video.sample_rate)
    context = stream.codec_context
    resampler = av.AudioResampler(format=context.format, layout=layout, rate=context.sample_rate)
    for frame in [*resampler.resample(source), *resampler.resample(None)]:
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


def _load_container(path: Path) -> Video:
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise KinemaError(f"{path} holds no video")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            fps = float(stream.average_rate or stream.guessed_rate or 0) or FOLDER_FPS
            frames = []
            for frame in container.decode(stream):
                turns = round(frame.rotation / 90) % 4  # phones store upright videos lying on their side
                frames.append(np.rot90(frame.to_ndarray(format="rgb24", interpolation="LANCZOS"), turns))
            metadata = _parse(container.metadata.get("comment") or container.metadata.get("COMMENT"))
        if not frames:
            raise KinemaError(f"{path} holds no picture that can be read")
        sound, sample_rate = _load_sound(path)
    except av.FFmpegError as error:
        raise KinemaError(f"{path} is not a video that can be read, or it is broken") from error
    return Video(np.stack(frames), fps=min(fps, 1000.0), sound=sound, sample_rate=sample_rate, metadata=metadata)


def _load_sound(path: Path) -> tuple[np.ndarray | None, int]:
    """The first sound track as (S,) or (S, 2) float32, with its rate; more than two channels are mixed to two."""
    import av

    with av.open(str(path)) as container:
        if not container.streams.audio:
            return None, 16000
        stream = container.streams.audio[0]
        rate, layout = int(stream.rate), "mono" if stream.layout.nb_channels == 1 else "stereo"
        rate = min(max(rate, 8000), 96000)
        resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
        parts = [out.to_ndarray() for frame in container.decode(stream) for out in resampler.resample(frame)]
        parts += [out.to_ndarray() for out in resampler.resample(None)]
    if not parts:
        return None, 16000
    samples = np.concatenate(parts, axis=1).T
    return (samples[:, 0] if samples.shape[1] == 1 else samples), rate


def _save_gif(video: Video, path: Path, metadata: dict[str, Any]) -> None:
    """One palette for the whole clip (no flicker between frames), dithered."""
    from PIL import Image

    picked = np.unique(np.linspace(0, len(video) - 1, min(len(video), 12)).round().astype(int))
    step = max(1, int(np.sqrt(len(picked) * video.height * video.width / 400_000)))
    mosaic = np.concatenate([video.frames[i, ::step, ::step] for i in picked], axis=0)
    palette = Image.fromarray(mosaic).quantize(256, method=Image.Quantize.MEDIANCUT, kmeans=1)
    pictures = [
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for frame in video.frames
    ]
    times = np.round(np.arange(len(video) + 1) * 100 / video.fps).astype(int) * 10  # GIF counts hundredths of a second
    durations = [max(int(d), 20) for d in np.diff(times)]  # browsers slow down anything faster than 20 ms
    pictures[0].save(
        path,
        format="GIF",
        save_all=True,
        append_images=pictures[1:],
        duration=durations,
        loop=0,
        optimize=False,
        comment=_dump({"fps": video.fps, "frames": len(video), "metadata": metadata}).encode("ascii"),
    )


def _load_gif(path: Path) -> Video:
    from PIL import Image

    pictures, durations = [], []
    try:
        with Image.open(path) as gif:
            comment = gif.info.get("comment", b"")
            for index in range(getattr(gif, "n_frames", 1)):
                gif.seek(index)
                durations.append(float(gif.info.get("duration", 100) or 100))
                pictures.append(np.asarray(gif.convert("RGB")))
    except Exception as error:  # Pillow raises many kinds for broken files; each means the same to the user
        raise KinemaError(f"{path} is not a gif that can be read, or it is broken") from error
    card = _parse(comment.decode("utf-8", "replace"))
    if {"fps", "frames", "metadata"} <= card.keys():
        fps, count, metadata = float(card["fps"]), int(card["frames"]), dict(card["metadata"])
    else:
        even = max(durations) - min(durations) <= 10
        fps = 1000 * len(durations) / sum(durations) if even else 1000 / min(durations)
        count, metadata = max(1, round(sum(durations) / 1000 * fps)), card
    ends = np.cumsum(durations) / 1000  # seconds; frames that look the same were stored once with a longer time
    shown = np.searchsorted(ends, (np.arange(count) + 0.5) / fps, side="right").clip(max=len(pictures) - 1)
    return Video(np.stack(pictures)[shown], fps=fps, metadata=metadata)


def _is_ours(path: Path) -> bool:
    digits = path.stem.removeprefix("frame_")
    return path.name in (FOLDER_CARD, "sound.wav") or (path.suffix == ".png" and digits.isdigit())


def _save_folder(video: Video, path: Path, metadata: dict[str, Any]) -> None:
    from PIL import Image

    path.mkdir()
    for index, frame in enumerate(video.frames):
        Image.fromarray(frame).save(path / f"frame_{index:04d}.png", optimize=False)
    card = {"fps": video.fps, "frames": len(video), "metadata": metadata}
    (path / FOLDER_CARD).write_text(json.dumps(card, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    if video.sound is not None:
        _save_wav(path / "sound.wav", video.sound, video.sample_rate)


def _save_wav(path: Path, sound: np.ndarray, sample_rate: int) -> None:
    import wave

    with wave.open(str(path), "wb") as out:
        out.setnchannels(1 if sound.ndim == 1 else sound.shape[1])
        out.setsampwidth(2)
        out.setframerate(sample_rate)
        out.writeframes((sound.clip(-1, 1) * 32767).round().astype("<i2").tobytes())


def _load_folder(path: Path) -> Video:
    names = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES and not p.name.startswith("."))
    if not names:
        raise KinemaError(f"the folder {path} holds no pictures ({', '.join(PICTURES)})")
    pictures = [load_picture(p) for p in names]
    odd = next((n for n, p in zip(names, pictures, strict=True) if p.shape != pictures[0].shape), None)
    if odd is not None:
        raise KinemaError(f"{odd} differs in size from {names[0].name}; all pictures of a folder need the same size")
    fps, metadata = FOLDER_FPS, {}
    if (path / FOLDER_CARD).is_file():
        try:
            card = json.loads((path / FOLDER_CARD).read_text(encoding="utf-8"))
            fps, metadata = float(card["fps"]), dict(card.get("metadata", {}))
        except (ValueError, KeyError, TypeError) as error:
            raise KinemaError(f"{path / FOLDER_CARD} is broken; delete it or write it again") from error
    sound: np.ndarray | None = None
    sample_rate = 16000
    if (path / "sound.wav").is_file():
        import av

        try:
            sound, sample_rate = _load_sound(path / "sound.wav")
        except av.FFmpegError as error:
            raise KinemaError(f"{path / 'sound.wav'} is not a sound that can be read") from error
    return Video(np.stack(pictures), fps=fps, sound=sound, sample_rate=sample_rate, metadata=metadata)
