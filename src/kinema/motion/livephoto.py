"""Animate a photo, and say by a number how much it moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinema.core.adapter import Adapter, AdapterNetwork, ModelFace, Opened
from kinema.core.errors import KinemaError
from kinema.core.features import Inside, Place
from kinema.core.registry import technique
from kinema.core.technique import Step
from kinema.layers.branch import Clock, waves, zeros

if TYPE_CHECKING:
    from kinema.core.run import Run

LEVELS = 10  # the highest intensity; 0 is hardly any motion
# Motion (`layers.pace`) from which on an intensity is 1, 2 ... 10, picture heights per second: tenths of the clips of
# the curriculum "paces" in which something moves.
EDGES = (0.003, 0.009, 0.015, 0.023, 0.036, 0.051, 0.075, 0.105, 0.142, 0.194)


class _Seen(NamedTuple):
    level: Tensor  # (B',)
    told: Tensor  # (B', T, D): intensity, noise level and place of each latent frame


class ToldBlock(nn.Module):
    """h += Z GELU((1 + s) A LN(h) + b), with s and b made of what is told, and Z = 0 at first."""

    def __init__(self, outer: int, width: int, told: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(outer, elementwise_affine=False)
        self.enter, self.told = nn.Linear(outer, width), nn.Linear(told, 2 * width)
        self.leave = zeros(nn.Linear(width, outer))

    def forward(self, h: Tensor, told: Tensor) -> Tensor:
        """h (B', T, N, outer), N tokens of a latent frame; told (B', T, D)."""
        scale, shift = self.told(F.silu(told))[:, :, None].chunk(2, dim=-1)
        out: Tensor = self.leave(F.gelu(self.enter(self.norm(h)) * (1 + scale) + shift))
        return out


class WordWeights(nn.Module):
    """w [(1 - g) y + g LN(x)], x the words y behind two attentions to motion tokens; at first g = 0 and w = 1."""

    def __init__(self, text: int, width: int, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(text) for _ in range(2)])
        self.q = nn.ModuleList([nn.Linear(text, width) for _ in range(2)])
        self.kv = nn.ModuleList([nn.Linear(text, 2 * width) for _ in range(2)])
        self.out = nn.ModuleList([nn.Linear(width, text) for _ in range(2)])
        self.last = nn.LayerNorm(text)
        self.gate = nn.Parameter(torch.zeros(1))
        self.weight = zeros(nn.Linear(text, 1))

    def forward(self, y: Tensor, motion: Tensor) -> Tensor:
        """y (B', P, D); motion (B', 2, D)."""
        x = y
        for norm, q, kv, out in zip(self.norms, self.q, self.kv, self.out, strict=True):
            asked = q(norm(x)).unflatten(2, (self.heads, -1)).transpose(1, 2)
            k, v = kv(motion).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
            x = x + out(F.scaled_dot_product_attention(asked, k, v).transpose(1, 2).flatten(2))
        x = self.last(x)
        counts = 2 * torch.sigmoid(self.weight(x))
        changed = counts * ((1 - self.gate) * y + self.gate * x)
        return torch.where((y != 0).any(dim=2, keepdim=True), changed, y)  # padding stays what it is


class LivePhotoNetwork(AdapterNetwork):
    """Intensities become a vector that is told behind the blocks, and two motion tokens that the words attend to."""

    def __init__(
        self,
        face: ModelFace,
        blocks: Sequence[int],
        text: int,
        edges: Sequence[float] = EDGES,
        width: int = 48,
        told: int = 64,
        text_width: int = 32,
    ) -> None:
        """text: channels of the text tokens, 0 for a model that reads none; edges: motion from which on an intensity is
        1, 2 ... `LEVELS`."""
        super().__init__(face, tuple(blocks))
        if len(edges) != LEVELS or list(edges) != sorted(edges) or edges[0] <= 0:
            raise ValueError(f"edges are {list(edges)}; use {LEVELS} rising numbers above 0")
        self.edges = tuple(edges)
        self.levels = nn.Embedding(LEVELS + 1, told)
        self.clock, self.place = Clock(told), nn.Linear(told, told)
        self.told_blocks = nn.ModuleDict({str(i): ToldBlock(face.widths[i], width, told) for i in self.blocks})
        self.motion = nn.Embedding(LEVELS + 1, 2 * text) if text else None
        self.words = WordWeights(text, text_width) if text else None

    @classmethod
    def sizes(cls, face: ModelFace) -> dict[str, Any]:
        """Behind the last block nothing is exchanged between places any more."""
        return {"blocks": list(face.widths)[:-1] or list(face.widths), "text": face.text, "edges": list(EDGES)}

    def level_of(self, given: Mapping[str, Tensor]) -> Tensor:
        """The intensity (B,) that is given, or the one of a measured motion."""
        if "intensity" in given:
            return given["intensity"].float()
        edges = torch.tensor(self.edges, device=given["motion"].device)
        return torch.bucketize(given["motion"].float(), edges, right=True).float()

    def begin(self, inside: Inside, given: Mapping[str, Tensor]) -> _Seen:
        level = inside.of(self.level_of(given))
        first = 0 if inside.window is None else inside.window.first
        places = first + torch.arange(inside.x.shape[2], device=level.device)
        place = self.place(waves(places, self.place.in_features))
        # The highest level of a clip: frames that are given are clean.
        clip = self.clock(inside.levels.amax(dim=1)) + between(self.levels.weight, level)
        return _Seen(level, clip[:, None] + place)

    def residual(self, seen: _Seen, place: Place, h: Tensor) -> Tensor:
        frames, step = place.tokens[0], self.face.patch[0]
        told_block = self.told_blocks[str(place.block)]
        out: Tensor = told_block(h.float().reshape(len(h), frames, -1, place.width), seen.told[:, ::step])
        return out.flatten(1, 2)

    def reweighted(self, seen: _Seen, text: Tensor) -> Tensor:
        """Text tokens (B', P, D) as the network is to read them."""
        if self.motion is None or self.words is None:
            return text
        motion = between(self.motion.weight, seen.level).reshape(len(text), 2, -1)
        if text.shape[2] != motion.shape[2]:
            raise KinemaError(
                f"the adapter was made for text tokens of {motion.shape[2]} channels, and the model has {text.shape[2]}"
            )
        out: Tensor = self.words(text.float(), motion)
        return out


def between(table: Tensor, level: Tensor) -> Tensor:
    """Rows of a table (N, D) at levels (B,), 0 to N - 1; those between two rows are mixed of them."""
    low = level.floor().long().clamp(0, len(table) - 2)
    return torch.lerp(table[low], table[low + 1], (level - low)[:, None])


@technique("livephoto", paper="arXiv:2312.02928", base="Stable Diffusion 1.5, code Wan 2.1", neutral=dict(weight=0.0))
@dataclass(frozen=True, kw_only=True)
class LivePhoto(Adapter):
    """h + Z GELU((1 + s) A LN(h) + b) behind the blocks, s and b of the intensity; words y -> w [(1 - g) y + g LN(x)].

    Paper: "LivePhoto: Real Image Animation with Text-guided Motion Control", 2023, arXiv:2312.02928.
    The photo is the request's image: the model's own clean first frame. x are the words behind attention to two motion
    tokens of the intensity, g a gate, and w says how much each word counts.
    Departures: the paper shows intensity and number of a frame as maps beside the latents, trains a motion module with
    them and has the photo's DINOv2 features; here a frozen model that moves and takes a first frame already is told
    both between its blocks. Intensity is the speed of the parts that move, from optical flow (`layers/pace.py`), where
    the paper has the structural similarity of frames, which counts texture and light as motion. The transformer that
    weighs words sees no frames, and the words only through the text encoder's own states. Motion tokens and gate are
    those of the authors' code for Wan 2.1, but the gate there is clamped and begins at -9, where nothing can be
    learned; here it begins at 0 and is not clamped. In the code's guidance the negative branch has no intensity; here
    it has, unless it is `joint`. The noise begins as any noise, without a share of the inverted photo.
    Without a photo the intensity is told all the same, to a model that was not trained for it.
    Shapes: text (B', P, D), features (B', L, D).
    Raises: KinemaError at start, for an intensity that there is not, or without weights for the model.
    """

    network: ClassVar[type[AdapterNetwork]] = LivePhotoNetwork
    condition: ClassVar[str] = "intensity"

    intensity: float = 5.0  # how much moves, 0 (hardly anything) to 10

    def given(self, run: Run) -> Mapping[str, Tensor]:
        if not 0 <= self.intensity <= LEVELS:
            raise KinemaError(f"intensity of {self.name} is {self.intensity:g}; use 0 to {LEVELS}")
        return {"intensity": torch.full((run.conditions.shape[0],), float(self.intensity))}

    def reword(self, step: Step, text: Tensor, inside: Inside) -> Tensor:
        if self.weight == 0:
            return text
        assert step.run is not None
        opened: Opened = step.run.state[self]
        network = opened.network
        assert isinstance(network, LivePhotoNetwork)
        if id(self) not in inside.memo:
            inside.memo[id(self)] = network.begin(inside, opened.given)
        changed = network.reweighted(inside.memo[id(self)], text).to(text.dtype)
        kept = inside.keeps(self.condition).to(text.dtype)[:, None, None]
        return text + self.weight * kept * (changed - text)
