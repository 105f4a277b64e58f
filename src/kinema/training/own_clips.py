"""A user's own clips as a source of micro-batches: encoded once, drawn by buckets.

Encoded clips lie in files `clip-<key>.safetensors`, one for each clip of the folder, float16 in the units of the
model's x: "000" is a piece of it (C, T, H, W), "000.picture" its first frame encoded as a picture (C, 1, H, W), where
the model makes single frames. The key is a hash of what is in the file, of the autoencoder, and of how clips are cut:
nothing is encoded twice, a stopped encoding goes on, and other settings do not meet; captions are no part of it. A file
appears under its name whole or not at all.

The first frame is encoded apart although most of these autoencoders are causal: in some (CogVideoX, HunyuanVideo) a
norm over all frames lets the others into the first latent frame.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from kinema.core.errors import KinemaError
from kinema.core.footage import as_video
from kinema.files import make_folder, replacing, sha256
from kinema.training.buckets import Bucket, Buckets, BucketSettings
from kinema.training.clip_folder import CaptionedClip, find_captioned
from kinema.training.clip_pieces import check_header, pieces
from kinema.training.clips import Drawn
from kinema.training.progress import duration

if TYPE_CHECKING:
    from kinema.backbones.base import DiffusersBackbone

FORMAT = 1
SAY_EVERY = 15.0  # seconds between words about the encoding

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class OwnClipsSettings:
    """How a folder of clips is trained on."""

    buckets: BucketSettings = field(default_factory=BucketSettings)
    most_pieces: int | None = None  # of a clip longer than the longest length, from its beginning; None: all
    image_share: float = 0.0  # share of micro-batches of single frames: pictures, and first frames of clips, 0..1

    def __post_init__(self) -> None:
        if not 0.0 <= self.image_share <= 1.0:
            raise ValueError(f"image_share is {self.image_share}; use 0 to 1")
        if self.most_pieces is not None and self.most_pieces < 1:
            raise ValueError(f"most_pieces is {self.most_pieces}; use 1 or more")


@dataclass(frozen=True)
class Piece:
    """A clip of a bucket that was encoded."""

    bucket: Bucket
    file: Path
    name: str  # of its latents in the file
    caption: str


def open_own_clips(
    backbone: DiffusersBackbone,
    data: Path,
    folder: Path,
    settings: OwnClipsSettings | None = None,
    say: Say = lambda text: None,
) -> OwnClips:
    """The clips of the folder `data`, encoded in `folder` as far as they are not.

    Raises: KinemaError, one sentence, before anything is encoded where it can be known.
    """
    settings = settings or OwnClipsSettings()
    buckets = Buckets.of(backbone, settings.buckets)
    if settings.image_share and 1 not in buckets.lengths:
        raise KinemaError(f"model {backbone.name!r} makes no single frames; set image_share to 0")
    clips = find_captioned(data)
    for clip in clips:
        check_header(clip)
    files = encode_all(backbone, clips, buckets, make_folder(folder), settings.most_pieces, say)
    found = [piece for clip, file in zip(clips, files, strict=True) for piece in read_pieces(file, clip.caption)]
    source = OwnClips(found, buckets.fps, settings.image_share)
    say(f"{len(clips)} clips in {len(found)} pieces: {source}")
    return source


# -- encoding ----------------------------------------------------------------------------------------------------


def encode_all(
    backbone: DiffusersBackbone,
    clips: Sequence[CaptionedClip],
    buckets: Buckets,
    folder: Path,
    most_pieces: int | None,
    say: Say,
) -> list[Path]:
    """The files of all clips; those that are there are left as they are."""
    made_of = json.dumps([FORMAT, autoencoder_hash(backbone), asdict(buckets), most_pieces], default=list)
    files = [folder / f"clip-{_key(made_of, clip.path)}.safetensors" for clip in clips]
    missing = [(clip, file) for clip, file in zip(clips, files, strict=True) if not file.exists()]
    begun = said = time.monotonic()
    for done, (clip, file) in enumerate(missing):
        if not file.exists():  # two clips may be the same
            encode_clip(backbone, clip, buckets, file, most_pieces)
        now = time.monotonic()
        if now - said > SAY_EVERY:
            left = (now - begun) / (done + 1) * (len(missing) - done - 1)
            say(f"{done + 1} of {len(missing)} clips encoded, {duration(left)} left")
            said = now
    return files


def encode_clip(
    backbone: DiffusersBackbone, clip: CaptionedClip, buckets: Buckets, file: Path, most_pieces: int | None = None
) -> None:
    """Writes the latents of a clip."""
    tensors: dict[str, Tensor] = {}
    sizes = []
    for number, (bucket, frames) in enumerate(pieces(clip, buckets, most_pieces)):
        video = as_video(torch.from_numpy(np.ascontiguousarray(frames))[None])
        tensors[f"{number:03d}"] = _coded(backbone, video)
        if bucket.num_frames > 1 and 1 in buckets.lengths:
            tensors[f"{number:03d}.picture"] = _coded(backbone, video[:, :, :1])
        sizes.append([bucket.num_frames, bucket.height, bucket.width])
    with replacing(file) as temporary:
        save_file(tensors, temporary, metadata={"clip": clip.name, "pieces": json.dumps(sizes)})


def _coded(backbone: DiffusersBackbone, video: Tensor) -> Tensor:
    return backbone.encode(video)[0].half().cpu().contiguous()


def autoencoder_hash(backbone: DiffusersBackbone) -> str:
    """SHA-256 over the files of a model's autoencoder."""
    digest = hashlib.sha256()
    for path in sorted((backbone.folder.path / "vae").iterdir()):
        if path.suffix in (".json", ".safetensors"):
            digest.update(f"{path.name} {sha256(path)}".encode())
    return digest.hexdigest()


def _key(made_of: str, path: Path) -> str:
    """Of what is in a file, or in a folder of pictures, and how it is encoded: 20 hexadecimal digits."""
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    names = [file.name for file in files] if path.is_dir() else [path.suffix.lower()]
    content = [f"{name} {sha256(file)}" for name, file in zip(names, files, strict=True)]
    return hashlib.sha256("\n".join([made_of, *content]).encode("utf-8", "surrogateescape")).hexdigest()[:20]


# -- drawing -----------------------------------------------------------------------------------------------------


def read_pieces(file: Path, caption: str) -> list[Piece]:
    """What an encoded clip holds."""
    with safe_open(file, framework="pt") as opened:
        sizes = json.loads(opened.metadata()["pieces"])
    return [Piece(Bucket(*size), file, f"{number:03d}", caption) for number, size in enumerate(sizes)]


class OwnClips:
    """A source of micro-batches, each of one bucket; see `training.clips.Clips`.

    A bucket is drawn in proportion to its clips, and with probability `image_share` a micro-batch is one of pictures:
    clips of one frame and the first frames of others. No clip is twice in a micro-batch that there are enough for.
    Latents stay on the disk until they are drawn.
    """

    def __init__(self, found: Sequence[Piece], fps: float, image_share: float = 0.0) -> None:
        """fps: frames per second of the pieces."""
        self.fps, self.image_share = fps, image_share
        self.buckets: dict[Bucket, list[Piece]] = {}
        self.pictures: dict[Bucket, list[Piece]] = {}
        for piece in found:
            self.buckets.setdefault(piece.bucket, []).append(piece)
            still = Bucket(1, piece.bucket.height, piece.bucket.width)
            self.pictures.setdefault(still, []).append(piece)

    def __str__(self) -> str:
        """How many clips of which size: "3 of 17x96x160, 1 of 1x128x128"."""
        return ", ".join(f"{len(found)} of {bucket}" for bucket, found in sorted(self.buckets.items(), reverse=True))

    @property
    def num_frames(self) -> int:
        """Frames of the longest clips."""
        return max(bucket.num_frames for bucket in self.buckets)

    @property
    def captions(self) -> tuple[str, ...]:
        """Different captions, in the order of the buckets."""
        return tuple(dict.fromkeys(piece.caption for found in self.buckets.values() for piece in found))

    def draw(self, step: int, size: int, generator: torch.Generator) -> Drawn:
        """Micro-batch of `size` clips, a function of `size` and the generator's state."""
        still = float(torch.rand(1, generator=generator)) < self.image_share
        found = _drawn_bucket(self.pictures if still else self.buckets, generator)
        order: list[int] = []
        while len(order) < size:
            order += torch.randperm(len(found), generator=generator).tolist()
        chosen = [found[i] for i in order[:size]]
        latents = torch.stack([_read(piece, still) for piece in chosen])
        return Drawn(latents.float(), [piece.caption for piece in chosen])


def _drawn_bucket(buckets: Mapping[Bucket, list[Piece]], generator: torch.Generator) -> list[Piece]:
    groups = [buckets[bucket] for bucket in sorted(buckets)]
    counts = torch.tensor([len(group) for group in groups], dtype=torch.float64)
    return groups[int(torch.multinomial(counts, 1, generator=generator))]


def _read(piece: Piece, still: bool) -> Tensor:
    name = f"{piece.name}.picture" if still and piece.bucket.num_frames > 1 else piece.name
    with safe_open(piece.file, framework="pt") as opened:
        found: Any = opened.get_tensor(name)
    latents: Tensor = found
    return latents
