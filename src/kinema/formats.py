"""How videos lie in files: mp4 and webm (PyAV), gif (Pillow), folders of pictures. `kinema.video` is the face of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from kinema.core.errors import KinemaError
from kinema.video import PICTURES, Video, load_picture

FOLDER_CARD = "video.json"  # in a folder of frames: fps and metadata
FOLDER_FPS = 8.0  # frames per second of a folder without a card
MAX_BYTES = 8 * 2**30  # frames that `load` holds in memory at most; about 1,300 frames of 1920x1080
BT709 = 1  # ISO/IEC 23091-2: primaries, transfer and matrix of HD video all have the number 1


def _rate(fps: float) -> Fraction:
    return Fraction(fps).limit_denominator(1001)


def _dump(metadata: dict[str, Any]) -> str:
    return json.dumps(metadata, ensure_ascii=True, separators=(",", ":"), sort_keys=True)


def parse_metadata(text: str | None) -> dict[str, Any]:
    """Metadata from a comment: our JSON object, or the comment itself under "comment"."""
    if not text:
        return {}
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return {"comment": text}
    return data if isinstance(data, dict) else {"comment": text}


def save_container(video: Video, path: Path, metadata: dict[str, Any]) -> None:
    """mp4 (H.264, AAC) or webm (VP9, Opus)."""
    with ContainerWriter(path, video.fps, video.sound, video.sample_rate) as writer:
        writer.add(video.frames)
        writer.finish(metadata)


class ContainerWriter:
    """Encodes an mp4 or webm frame by frame. In memory stays what is encoded: its metadata may be known last.

    One encoder thread and bit-exact headers keep the bytes the same.
    """

    def __init__(self, path: Path, fps: float, sound: np.ndarray | None = None, sample_rate: int = 16000) -> None:
        import av

        self.mp4 = path.suffix.lower() == ".mp4"
        self.fps, self.sound, self.sample_rate = fps, sound, sample_rate
        options = {"movflags": "+faststart", "fflags": "+bitexact"} if self.mp4 else {"fflags": "+bitexact"}
        self._out: Any = av.open(str(path), "w", format="mp4" if self.mp4 else "webm", container_options=options)
        self._stream: Any = None
        self._packets: list[Any] = []
        self._count = 0

    def __enter__(self) -> ContainerWriter:
        return self

    def __exit__(self, *error: Any) -> None:
        self._out.close()

    def add(self, frames: np.ndarray) -> None:
        """The next frames, (n, H, W, 3) uint8; odd sizes get their last row or column twice."""
        import av

        height, width = frames.shape[1:3]
        if height % 2 or width % 2:
            frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._stream is None:
            self._stream = self._video(*frames.shape[1:3])
        for picture in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=BT709, interpolation="LANCZOS")
            frame.pts, frame.time_base = self._count, 1 / _rate(self.fps)
            self._packets += self._stream.encode(frame)
            self._count += 1

    def finish(self, metadata: dict[str, Any]) -> None:
        """Writes the file: the metadata, all frames and the sound."""
        if metadata:
            self._out.metadata["comment"] = _dump(metadata)
        audio = self._audio() if self.sound is not None and len(self.sound) else None
        self._out.mux([*self._packets, *self._stream.encode(None)])
        if audio is not None:
            self._mux_sound(audio)

    def _video(self, height: int, width: int) -> Any:
        stream = self._out.add_stream("libx264" if self.mp4 else "libvpx-vp9", rate=_rate(self.fps))
        # x264's macroblock tree reads memory it never wrote at some widths: now and then other bytes come out.
        stream.options = (
            {"crf": "16", "preset": "slow", "x264-params": "mbtree=0"}
            if self.mp4
            else {"crf": "20", "b": "0", "deadline": "good", "cpu-used": "2", "row-mt": "0"}
        )
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        context = stream.codec_context
        context.thread_count = 1
        context.color_primaries = context.color_trc = context.colorspace = BT709
        context.color_range = 1  # limited, 16..235, what every player expects
        return stream

    def _audio(self) -> Any:
        assert self.sound is not None
        stream = self._out.add_stream("aac" if self.mp4 else "libopus", rate=self.sample_rate if self.mp4 else 48000)
        stream.layout = "stereo" if self.sound.ndim == 2 and self.sound.shape[1] == 2 else "mono"
        stream.codec_context.bit_rate = 160_000
        return stream

    def _mux_sound(self, stream: Any) -> None:
        import av

        assert self.sound is not None
        samples = self.sound if self.sound.ndim == 2 else self.sound[:, None]
        layout = "stereo" if samples.shape[1] == 2 else "mono"
        source = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T.clip(-1, 1)), format="fltp", layout=layout)
        source.sample_rate, source.pts, source.time_base = self.sample_rate, 0, Fraction(1, self.sample_rate)
        context = stream.codec_context
        resampler = av.AudioResampler(format=context.format, layout=layout, rate=context.sample_rate)
        for frame in [*resampler.resample(source), *resampler.resample(None)]:
            self._out.mux(stream.encode(frame))
        self._out.mux(stream.encode(None))


def load_container(path: Path, max_bytes: int = MAX_BYTES) -> Video:
    frames: list[np.ndarray] = []
    with open_container(path) as (fps, pictures, metadata):
        for picture in pictures:
            check_memory(len(frames) + 1, picture.shape[0], picture.shape[1], path, max_bytes)
            frames.append(picture)
        sound, sample_rate = load_sound(path)
    return Video(np.stack(frames), fps=fps, sound=sound, sample_rate=sample_rate, metadata=metadata)


@contextmanager
def open_container(path: Path) -> Iterator[tuple[float, Iterator[np.ndarray], dict[str, Any]]]:
    """Frames per second, the frames (H, W, 3) uint8 one after the other, upright, and the metadata.

    Raises: KinemaError, one sentence, when it is no video or broken, also where the frames are read inside the `with`.
    """
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise KinemaError(f"{path} holds no video")
            stream = container.streams.video[0]
            if cut := cut_short(stream, path):
                raise KinemaError(f"{path} is {cut}")
            stream.thread_type = "AUTO"
            fps = float(stream.average_rate or stream.guessed_rate or 0) or FOLDER_FPS
            metadata = parse_metadata(container.metadata.get("comment") or container.metadata.get("COMMENT"))
            yield min(fps, 1000.0), _upright(container.decode(stream), path), metadata
    except av.FFmpegError as error:
        raise KinemaError(f"{path} is not a video that can be read, or it is broken") from error


def cut_short(stream: Any, path: Path) -> str:
    """In words, where a container names bytes that are not there; FFmpeg gives those that are, without a word."""
    ends = [entry.pos + entry.size for entry in getattr(stream, "index_entries", ())]
    end, size = max([*ends, _matroska_end(path)]), path.stat().st_size
    return f"cut short: {size} of at least {end} bytes" if end > size else ""


def _matroska_end(path: Path) -> int:
    """Where the segment of a webm or mkv ends, whose index stands behind its frames; 0 where it does not say.

    An element is its id, its size and its bytes; the leading zero bits of a size say how long it is (RFC 8794).
    """
    size = marker = 0
    with path.open("rb") as file:
        for name in (b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"):  # the header, and the segment behind it
            file.seek(size, os.SEEK_CUR)
            first = file.read(5)
            if first[:4] != name or len(first) < 5:
                return 0
            more = 8 - first[4].bit_length()
            marker = 1 << 7 * (more + 1)
            size = int.from_bytes(first[4:] + file.read(more)) - marker
        return 0 if size == marker - 1 else file.tell() + size  # all ones: it is not known, as of a stream


def _upright(decoded: Iterator[Any], path: Path) -> Iterator[np.ndarray]:
    from av.video.reformatter import VideoReformatter

    to_rgb = VideoReformatter()  # of one for each frame, most of the time goes into starting its threads
    frame = None
    for frame in decoded:
        picture = to_rgb.reformat(frame, format="rgb24", interpolation="LANCZOS", threads=1)
        yield np.rot90(picture.to_ndarray(), round(frame.rotation / 90) % 4)  # phones film lying on their side
    if frame is None:
        raise KinemaError(f"{path} holds no picture that can be read")


def load_sound(path: Path) -> tuple[np.ndarray | None, int]:
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


def save_gif(video: Video, path: Path, metadata: dict[str, Any]) -> None:
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


def load_gif(path: Path, max_bytes: int = MAX_BYTES) -> Video:
    fps, shown, metadata = gif_timing(path)
    pictures: list[np.ndarray] = []
    for picture in gif_pictures(path):
        check_memory(max(len(shown), len(pictures) + 1), picture.shape[0], picture.shape[1], path, max_bytes)
        pictures.append(picture)
    return Video(np.stack(pictures)[shown], fps=fps, metadata=metadata)


def gif_pictures(path: Path, first: int = 0) -> Iterator[np.ndarray]:
    """The pictures (H, W, 3) uint8 that a gif stores, one after the other. Raises: KinemaError for a broken one."""
    with _open_gif(path) as gif:
        for index in range(first, getattr(gif, "n_frames", 1)):
            gif.seek(index)
            yield np.asarray(gif.convert("RGB"))


def gif_timing(path: Path) -> tuple[float, np.ndarray, dict[str, Any]]:
    """Frames per second of a gif, which of its pictures is each frame, and its metadata."""
    durations = []
    with _open_gif(path) as gif:
        comment = gif.info.get("comment", b"")
        for index in range(getattr(gif, "n_frames", 1)):
            gif.seek(index)
            durations.append(float(gif.info.get("duration", 100) or 100))
    seconds = sum(durations) / 1000
    card = parse_metadata(comment.decode("utf-8", "replace"))
    ours = _gif_card(card, seconds)
    if ours is None:
        even = max(durations) - min(durations) <= 10
        fps = len(durations) / seconds if even else 1000 / min(durations)
        ours = fps, max(1, round(seconds * fps)), card
    fps, count, metadata = ours
    ends = np.cumsum(durations) / 1000  # seconds; frames that look the same were stored once with a longer time
    shown = np.searchsorted(ends, (np.arange(count) + 0.5) / fps, side="right").clip(max=len(durations) - 1)
    return fps, shown, metadata


@contextmanager
def _open_gif(path: Path) -> Iterator[Any]:
    from PIL import Image

    try:
        with Image.open(path) as gif:
            yield gif
    except KinemaError:
        raise
    except Exception as error:  # Pillow raises many kinds for broken files; each means the same to the user
        raise KinemaError(f"{path} is not a gif that can be read, or it is broken") from error


def _gif_card(card: dict[str, Any], seconds: float) -> tuple[float, int, dict[str, Any]] | None:
    """fps, frame count and metadata as `save_gif` wrote them, or None when it did not."""
    fps, count, metadata = card.get("fps"), card.get("frames"), card.get("metadata")
    if not (isinstance(fps, float) and isinstance(count, int) and isinstance(metadata, dict)):
        return None
    if not (0 < fps <= 1000 and 1 <= count <= 50 * seconds + 1):  # no frame of ours is shorter than 20 ms
        return None
    return fps, count, metadata


def check_memory(frames: int, height: int, width: int, path: Path, max_bytes: int = MAX_BYTES) -> None:
    """Raises: KinemaError when frames of that count and size hold more than `max_bytes`."""
    if frames * height * width * 3 > max_bytes:
        raise KinemaError(f"{path} is too long to hold in memory ({max_bytes / 2**30:g} GB of frames); cut it shorter")


def is_ours(path: Path) -> bool:
    digits = path.stem.removeprefix("frame_")
    return path.name in (FOLDER_CARD, "sound.wav") or (path.suffix == ".png" and digits.isdigit())


def save_folder(video: Video, path: Path, metadata: dict[str, Any]) -> None:
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


def load_folder(path: Path, max_bytes: int = MAX_BYTES) -> Video:
    names = folder_pictures(path)
    first = load_picture(names[0])
    check_memory(len(names), first.shape[0], first.shape[1], path, max_bytes)
    pictures = [first, *(load_picture(p) for p in names[1:])]
    odd = next((n for n, p in zip(names, pictures, strict=True) if p.shape != pictures[0].shape), None)
    if odd is not None:
        raise KinemaError(f"{odd} differs in size from {names[0].name}; all pictures of a folder need the same size")
    fps, metadata = folder_card(path)
    sound, sample_rate = folder_sound(path)
    return Video(np.stack(pictures), fps=fps, sound=sound, sample_rate=sample_rate, metadata=metadata)


def folder_pictures(path: Path) -> list[Path]:
    """The pictures of a folder in the order of their names. Raises: KinemaError when there are none."""
    names = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES and not p.name.startswith("."))
    if not names:
        raise KinemaError(f"the folder {path} holds no pictures ({', '.join(PICTURES)})")
    return names


def folder_card(path: Path) -> tuple[float, dict[str, Any]]:
    """Frames per second and metadata of a folder of pictures."""
    if not (path / FOLDER_CARD).is_file():
        return FOLDER_FPS, {}
    try:
        card = json.loads((path / FOLDER_CARD).read_text(encoding="utf-8"))
        return float(card["fps"]), dict(card.get("metadata", {}))
    except (ValueError, KeyError, TypeError) as error:
        raise KinemaError(f"{path / FOLDER_CARD} is broken; delete it or write it again") from error


def folder_sound(path: Path) -> tuple[np.ndarray | None, int]:
    """The sound beside the pictures of a folder."""
    if not (path / "sound.wav").is_file():
        return None, 16000
    import av

    try:
        return load_sound(path / "sound.wav")
    except av.FFmpegError as error:
        raise KinemaError(f"{path / 'sound.wav'} is not a sound that can be read") from error


# What `Video.save` writes, by extension; none is a folder.
WRITERS: dict[str, Callable[[Video, Path, dict[str, Any]], None]] = {
    ".mp4": save_container,
    ".webm": save_container,
    ".gif": save_gif,
    "": save_folder,
}
