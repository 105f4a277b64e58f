"""The judge: a small network that reads from a clip what is in it and what happens.

It reads the objects (kind and colour), the ground, the sky, the events in order and the camera move. It is trained
on rendered clips of `kinema.world` only (`kinema train judge`), never on generated video, so that a generator is
measured by something that has not seen its mistakes. Its own accuracy is re-measured by
`python -m kinema.claims.judge`. It is a network of our own; no paper is followed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinema.layers.picture_net import ChannelNorm
from kinema.layers.saved import read_network, write_network

NONE = "none"  # the event word of a slot in which nothing happens


def event_word(label: str) -> str:
    """The judge's word for an event's label: what rolls or slides "moves", because on film both are the same.

    "roll left" and "slide left" give "move left"; every other label stays as it is.
    """
    action, _, direction = label.partition(" ")
    return f"move {direction}" if action in ("roll", "slide") and direction else label


def mirror_word(word: str) -> str:
    """The word for the same thing in a mirror: left and right change places."""
    swap = {"left": "right", "right": "left"}
    return " ".join(swap.get(part, part) for part in word.split(" "))


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """Words the judge can say, and its sizes. Saved as `config.json` beside the weights."""

    kinds: tuple[str, ...]
    colours: tuple[str, ...]
    grounds: tuple[str, ...]
    skies: tuple[str, ...]
    cameras: tuple[str, ...]
    events: tuple[str, ...]  # the first is "none"
    objects: int = 1  # most objects it looks for; counts 0 .. objects
    event_slots: int = 2  # most events in a row
    frames: int = 13  # frames it looks at, spread evenly over the clip
    size: int = 64  # pixels, edge of the square it looks at; a multiple of 8
    channels: tuple[int, int, int] = (24, 48, 96)  # at 1/2, 1/4 and 1/8 of the size
    width: int = 128
    layers: int = 3
    heads: int = 4
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if not self.events or self.events[0] != NONE:
            raise ValueError(f'the first event word is {self.events[:1]}; it has to be "{NONE}"')
        if self.size % 8:
            raise ValueError(f"size is {self.size}; use a multiple of 8")

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> JudgeConfig:
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**values)

    def mirrored(self, words: Sequence[str]) -> list[int]:
        """For each word its index after the clip is mirrored; words without a mirror image stay."""
        return [words.index(mirror_word(w)) if mirror_word(w) in words else i for i, w in enumerate(words)]


@dataclass(frozen=True)
class Guess:
    """A word and how sure the judge is of it, 0..1."""

    word: str
    confidence: float


@dataclass(frozen=True)
class ObjectReading:
    kind: Guess
    colour: Guess


@dataclass(frozen=True)
class Reading:
    """What the judge sees in one clip. `events` are in order, without "none"; `seconds` is the clip's length."""

    objects: tuple[ObjectReading, ...]
    ground: Guess
    sky: Guess
    camera: Guess
    events: tuple[Guess, ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class _Block(nn.Module):
    """A residual 3x3 convolution, then a residual mix of each channel with the frames before and after (0 at first)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.time = nn.Parameter(torch.zeros(2, channels))  # weights of the frame before and the frame after

    def forward(self, x: Tensor, length: int) -> Tensor:
        x = x + self.conv(F.silu(self.norm(x)))
        x = torch.unflatten(x.permute(0, 2, 3, 1), 0, (-1, length))  # (B, T, H, W, C); the ends repeat
        before, after = self.time.to(x.dtype)
        past, future = torch.cat([x[:, :1], x[:, :-1]], 1), torch.cat([x[:, 1:], x[:, -1:]], 1)
        mixed: Tensor = x + before * past + after * future
        return mixed.flatten(0, 1).permute(0, 3, 1, 2)


class JudgeNet(nn.Module):
    """The network: convolutions per frame, one soft tracker per object, a small transformer over frames.

    Each object slot has a heat map over the cells of the last feature grid; the features under it name kind and
    colour, and its path goes to the transformer, where learned queries answer events and camera move.
    """

    cells: Tensor

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__()
        self.config = config
        c1, c2, c3 = config.channels
        d, slots = config.width, config.objects
        self.grid = config.size // 8
        cells = self.grid**2
        self.stem = nn.Conv2d(6, c1, 3, stride=2, padding=1)
        self.down = nn.ModuleList(
            [nn.Conv2d(c1, c2, 3, stride=2, padding=1), nn.Conv2d(c2, c3, 3, stride=2, padding=1)]
        )
        self.norms = nn.ModuleList([nn.Identity(), ChannelNorm(c2)])
        self.blocks = nn.ModuleList([_Block(c3), _Block(c3)])
        self.norm = ChannelNorm(c3)
        self.heat = nn.Conv2d(c3, slots, 1)
        self.layout = nn.Conv2d(c3, 12, 1)
        self.token = nn.Linear(12 * cells + c3 + slots * (c3 + 2), d)
        self.position = nn.Parameter(torch.zeros(config.frames, d))
        self.queries = nn.Parameter(torch.zeros(config.event_slots + 1, d))
        layer = nn.TransformerEncoderLayer(
            d, config.heads, 2 * d, config.dropout, "gelu", batch_first=True, norm_first=True
        )
        self.mixer = nn.TransformerEncoder(layer, config.layers, nn.LayerNorm(d), enable_nested_tensor=False)
        self.scene = nn.Conv2d(c3, 2, 1)  # where to look for the ground and for the sky
        self.moment = nn.Linear(c3, 1)  # which frames show an object best
        self.drop = nn.Dropout(config.dropout)
        self.object = nn.Sequential(nn.Linear(3 * c3, d), nn.SiLU())
        self.kind = nn.Linear(d, len(config.kinds))
        self.colour = nn.Linear(d, len(config.colours))
        self.count = nn.Linear(d + c3 * slots, slots + 1)
        self.ground = nn.Linear(c3, len(config.grounds))
        self.sky = nn.Linear(c3, len(config.skies))
        self.event = nn.Linear(d, len(config.events))
        self.camera = nn.Linear(d, len(config.cameras))
        self.motion = nn.Linear(d, 6 + 4 * slots)  # only asked for in training: it makes events easy to tell
        nn.init.normal_(self.position, std=0.02, generator=torch.Generator().manual_seed(0))
        nn.init.normal_(self.queries, std=0.5, generator=torch.Generator().manual_seed(1))
        axis = (torch.arange(self.grid) + 0.5) / self.grid * 2 - 1
        self.register_buffer("cells", torch.cartesian_prod(axis, axis).flip(1), persistent=False)  # (H*W, 2) x, y

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        """frames (B, T, 3, S, S) in 0..1 -> logits.

        count (B, N+1), kind (B, N, K), colour (B, N, K), ground, sky, camera (B, K), event (B, E, K),
        heat (B, T, N, H*W) over cells, where (B, T, N, 2) x and y in -1..1, feature (B, D), and how camera and
        objects have moved since the first frame (B, T, 6 + 4N), see `kinema.training.judge.motions`. And what it has
        made of each frame, token (B, T, D), and of each event, happening (B, E, D), before it is put into words.
        """
        length = frames.shape[1]
        x = frames * 2 - 1
        change = torch.diff(x, dim=1, prepend=x[:, :1]) * 3  # what moved since the frame before
        x = torch.cat([x, change], 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        x = self.stem(x)
        for norm, down in zip(self.norms, self.down, strict=True):
            x = down(F.silu(norm(x)))
        for block in self.blocks:
            x = block(x, length)
        x = F.silu(self.norm(x))
        flat = torch.unflatten(x.flatten(2), 0, (-1, length)).float()  # (B, T, C, H*W)
        heat = torch.unflatten(self.heat(x).flatten(2), 0, (-1, length)).float()  # (B, T, N, H*W)
        weight = heat.softmax(-1)
        local = weight @ flat.transpose(2, 3)  # (B, T, N, C)
        where = (weight[..., None] * self.cells).sum(-2)  # (B, T, N, 2)
        layout = torch.unflatten(self.layout(x).flatten(1), 0, (-1, length))
        token = self.token(torch.cat([layout, flat.mean(-1), local.flatten(2), where.flatten(2)], -1)) + self.position
        queries = self.queries.expand(len(token), -1, -1)
        mixed = self.mixer(torch.cat([queries, token], 1))
        answers, tokens = mixed[:, : len(self.queries)], mixed[:, len(self.queries) :]
        looks = torch.unflatten(self.scene(x).flatten(2), 0, (-1, length)).float().softmax(-1)  # (B, T, 2, H*W)
        ground, sky = (looks @ flat.transpose(2, 3)).mean(1).unbind(1)  # (B, C) each
        best = self.moment(local).float().softmax(1)  # (B, T, N, 1)
        seen = (best * local).sum(1)  # (B, N, C)
        light = torch.cat([ground, sky], -1)[:, None].expand(-1, seen.shape[1], -1)
        thing = self.drop(self.object(torch.cat([seen, light], -1)))
        feature = tokens.mean(1)
        return {
            "count": self.count(torch.cat([feature, seen.flatten(1)], -1)),
            "kind": self.kind(thing),
            "colour": self.colour(thing),
            "ground": self.ground(self.drop(ground)),
            "sky": self.sky(self.drop(sky)),
            "camera": self.camera(answers[:, 0]),
            "event": self.event(answers[:, 1:]),
            "heat": heat,
            "where": where,
            "motion": self.motion(tokens),
            "feature": feature,
            "token": tokens,
            "happening": answers[:, 1:],
        }


def resize(x: Tensor, size: int) -> Tensor:
    """Square pictures (F, 3, S, S) at another size, (F, 3, size, size), bilinear with a low pass when they shrink."""
    if x.shape[-1] == size:
        return x
    return F.interpolate(x, (size, size), mode="bilinear", align_corners=False, antialias=x.shape[-1] > size)


def look(frames: Any, size: int, count: int) -> Tensor:
    """What the judge looks at: frames (T, H, W, 3) uint8 of any length and size -> (count, 3, size, size) in 0..1.

    Frames are taken evenly from first to last; a picture that is not square is continued by its edge pixels.
    Raises: ValueError when the shape or the type is another one.
    """
    array = torch.as_tensor(np.ascontiguousarray(frames))
    if array.ndim != 4 or array.shape[-1] != 3 or array.dtype != torch.uint8 or not array.numel():
        raise ValueError(f"frames are {tuple(array.shape)} {array.dtype}; use (T, H, W, 3) uint8, at least one frame")
    index = torch.linspace(0, len(array) - 1, count).round().long()
    x = array[index].permute(0, 3, 1, 2).float() / 255
    height, width = x.shape[-2:]
    edge = max(height, width)
    if height != width:
        top, left = (edge - height) // 2, (edge - width) // 2
        x = F.pad(x, (left, edge - width - left, top, edge - height - top), mode="replicate")
    return resize(x, size)


class Judge:
    """Reads clips. `Judge.load()` gives the trained judge that ships with kinema."""

    def __init__(self, net: JudgeNet, card: dict[str, Any] | None = None) -> None:
        self.net = net.eval()
        self.config = net.config
        self.card = card or {}

    @classmethod
    def load(cls, path: str | Path | None = None, device: str | torch.device = "cpu") -> Judge:
        """Reads `config.json`, `model.safetensors` and (if there) `card.json` of a folder.

        Without a path: the judge inside the package.
        Raises: KinemaError when a file is missing, damaged or does not fit.
        """
        net, card = read_network("judge", path, lambda config: JudgeNet(JudgeConfig.from_dict(config)))
        return cls(net.to(device), card)

    def save(self, path: str | Path) -> None:
        """Writes config.json, model.safetensors (float16) and card.json into a folder, each whole or not at all."""
        write_network(path, self.net, self.config, self.card)

    @property
    def device(self) -> torch.device:
        return self.net.position.device

    @torch.inference_mode()
    def logits(self, clips: Sequence[Any], batch: int = 32) -> dict[str, Tensor]:
        """Clips, each (T, H, W, 3) uint8 -> the network's answers for all of them, on the CPU (see JudgeNet)."""
        parts = []
        for start in range(0, len(clips), batch):
            seen = [look(c, self.config.size, self.config.frames) for c in clips[start : start + batch]]
            parts.append({k: v.cpu() for k, v in self.net(torch.stack(seen).to(self.device)).items()})
        if not parts:
            raise ValueError("there is no clip to read; give at least one")
        return {k: torch.cat([p[k] for p in parts]) for k in parts[0]}

    def read(self, frames: Any, fps: float = 8.0) -> Reading:
        """One clip (T, H, W, 3) uint8 -> Reading. The whole clip is looked at, whatever its length.

        `fps` (frames per second) only gives `Reading.seconds`.
        """
        return self.read_batch([frames], fps)[0]

    def read_batch(self, clips: Sequence[Any], fps: float = 8.0) -> list[Reading]:
        """Many clips, each (T, H, W, 3) uint8, also of different sizes -> a Reading for each."""
        if fps <= 0:
            raise ValueError(f"fps is {fps}; use a number above 0")
        return readings(self.logits(clips), self.config, [len(clip) / fps for clip in clips])

    def features(self, clips: Sequence[Any]) -> Tensor:
        """Clips -> (B, D) float32, one pooled vector a clip, for distances between sets of clips."""
        return self.logits(clips)["feature"]


def in_a_row(slots: Sequence[Guess]) -> tuple[Guess, ...]:
    """What happens, from one guess a slot: without "none", and the same thing twice in a row is one event.

    No scene does the same twice in a row, since on film it is one; the guess that is surer stands for both.
    """
    found: list[Guess] = []
    for event in slots:
        if event.word == NONE:
            continue
        if found and found[-1].word == event.word:
            found[-1] = max(found[-1], event, key=lambda guess: guess.confidence)
        else:
            found.append(event)
    return tuple(found)


def readings(logits: dict[str, Tensor], config: JudgeConfig, seconds: Sequence[float]) -> list[Reading]:
    """The network's logits in words, the likeliest word each."""

    def guess(row: Tensor, words: Sequence[str]) -> Guess:
        chance, index = row.float().softmax(-1).max(-1)
        return Guess(words[int(index)], round(float(chance), 4))

    found = []
    for i, length in enumerate(seconds):
        count = int(logits["count"][i].argmax())
        objects = tuple(
            ObjectReading(guess(logits["kind"][i, n], config.kinds), guess(logits["colour"][i, n], config.colours))
            for n in range(count)
        )
        events = [guess(row, config.events) for row in logits["event"][i]]
        found.append(
            Reading(
                objects=objects,
                ground=guess(logits["ground"][i], config.grounds),
                sky=guess(logits["sky"][i], config.skies),
                camera=guess(logits["camera"][i], config.cameras),
                events=in_a_row(events),
                seconds=length,
            )
        )
    return found
