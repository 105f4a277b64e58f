"""Events at exact times: every block attends to the texts of all events, from places that say how far each has come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinema.core.adapter import Adapter, AdapterNetwork, ModelFace
from kinema.core.errors import KinemaError
from kinema.core.features import Inside, Place
from kinema.core.registry import technique
from kinema.layers.branch import zeros
from kinema.layers.rotary_pairs import turned
from kinema.timeline.events import CLOSE, middles

if TYPE_CHECKING:
    from kinema.core.run import Run
    from kinema.timeline import Timeline

Span = tuple[float, float]  # start and end of an event, seconds
NEVER = (1e9, 2e9)  # the span of what fills a batch up


def progress(spans: Tensor, times: Tensor) -> Tensor:
    """How many events have passed at times (..., T), parts of one included, (..., T): n - 1 where event n starts.

    spans: (..., N, 2), one behind the other, in the unit of the times. In a gap it stands still at a whole number, the
    same from the gap's middle on as ahead of it.
    """
    start, end = spans[..., None, :, 0], spans[..., None, :, 1]
    return ((times[..., None] - start) / (end - start)).clamp(0, 1).sum(-1)


class _Seen(NamedTuple):
    texts: Tensor  # (B', P, D)
    real: Tensor  # (B', 1, 1, P) bool, no padding
    own: Tensor  # (B', T), where latent frames stand
    theirs: Tensor  # (B', P), where text tokens do


class EventAttention(nn.Module):
    """h += Z CrossAttn(R(t~) q, R(p) k, v), with Z = 0 at first."""

    def __init__(self, outer: int, text: int, width: int, heads: int) -> None:
        super().__init__()
        if width % (2 * heads):
            raise ValueError(f"width is {width} with {heads} heads; use an even number of channels a head")
        self.heads = heads
        self.norm = nn.LayerNorm(outer)
        self.q, self.k, self.v = nn.Linear(outer, width), nn.Linear(text, width), nn.Linear(text, width)
        self.norm_q, self.norm_k = nn.RMSNorm(width // heads), nn.RMSNorm(width // heads)
        for layer in (self.q, self.k):  # alike in every token: it begins by looking at what stands near
            nn.init.ones_(layer.bias)
        self.leave = zeros(nn.Linear(width, outer))

    def forward(self, h: Tensor, texts: Tensor, real: Tensor, own: Tensor, theirs: Tensor) -> Tensor:
        """h (B, L, outer), texts (B, P, text), real (B, 1, 1, P); own and theirs: places, (B, L) and (B, P)."""
        q, k, v = (
            u.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for u in (self.q(self.norm(h)), self.k(texts), self.v(texts))
        )
        q, k = (
            turned(norm(u), rotary(places, u.shape[-1]))
            for norm, u, places in ((self.norm_q, q, own), (self.norm_k, k, theirs))
        )
        seen = F.scaled_dot_product_attention(q, k.to(q.dtype), v.to(q.dtype), attn_mask=real)
        out: Tensor = self.leave(seen.transpose(1, 2).flatten(2))
        return out


def rotary(places: Tensor, width: int) -> Tensor:
    """The table (2, B, 1, L, width) of tokens at places (B, L), which need not be whole numbers."""
    rate = 100.0 ** -(torch.arange(0, width, 2, device=places.device) / width)
    angle = (places[..., None] * rate).repeat_interleave(2, dim=-1)[:, None]
    return torch.stack([angle.cos(), angle.sin()])


class MinTNetwork(AdapterNetwork):
    """A temporal cross-attention behind each of its blocks; `length` is L, the places that an event takes."""

    def __init__(
        self, face: ModelFace, blocks: Sequence[int], width: int = 128, heads: int = 4, length: float = 8.0
    ) -> None:
        super().__init__(face, tuple(blocks))
        if not face.text:
            raise ValueError("the model reads no words, and events are told in words; use a model that reads a prompt")
        self.length = length
        self.norm = nn.LayerNorm(face.text)
        self.attentions = nn.ModuleDict(
            {str(i): EventAttention(face.widths[i], face.text, width, heads) for i in self.blocks}
        )

    @classmethod
    def sizes(cls, face: ModelFace) -> dict[str, Any]:
        return {"blocks": list(face.widths)}

    def begin(self, inside: Inside, given: Mapping[str, Tensor]) -> _Seen:
        texts, real, middle = (inside.of(given[name]) for name in ("texts", "real", "places"))
        own = inside.of(given["progress"], dim=1)
        return _Seen(self.norm(texts.float()), real[:, None, None], self.length * own, self.length * middle)

    def residual(self, seen: _Seen, place: Place, h: Tensor) -> Tensor:
        frames, rows, columns = place.tokens
        own = F.adaptive_avg_pool1d(seen.own[:, None], frames)[:, 0].repeat_interleave(rows * columns, dim=1)
        out: Tensor = self.attentions[str(place.block)](h.float(), seen.texts, seen.real, own, seen.theirs)
        return out


@technique("mint", paper="arXiv:2412.05263", base="an in-house latent video DiT", neutral=dict(weight=0.0))
@dataclass(frozen=True, kw_only=True)
class MinT(Adapter):
    """h + Z CrossAttn(h, texts of all events), rotary places: t~ = (t - s) L / (e - s) + (n - 1) L of a latent frame at
    time t in event n from s to e, and (n - 1/2) L of that event's text (ReRoPE).

    So a frame in an event is nearest to that event's text, however long it is, and as near to both texts at a border.
    The prompt as a whole, without times, is read by the model itself as ever. What it says of the events has no times,
    so guidance, where it is plain CFG, is mostly of the events, v = c + (s - 1) ((e - u) + text_share (c - e)), with e
    without the prompt as a whole and u without both. At 0 what the prompt leaves unsaid, as that it is day, is kept
    less often; 1 is u + s (c - u), for times that are kept less exactly and a call of the model less.
    Paper: "Mind the Time: Temporally-Controlled Multi-Event Video Generation", 2024, arXiv:2412.05263.
    Departures: the attention stands behind each block and not inside, between its cross-attention and its perceptron,
    because that is where features are seen. There is no token for cuts: the clips of the training have none, and
    "no cuts" is a zero in the paper, too. Between events, where the paper has no formula, and ahead of the first and
    behind the last, t~ stays at the border. Queries and keys have RMS norms and begin with a part that is alike in all
    tokens, so that the attention begins by looking at what is near. The text is padded as the model reads it: CogVideoX
    reads its padding. Only these layers are trained. Events are the user's
    own: the paper's language model that plans them from one prompt is no part of this. The paper's guidance has one
    weight; the share is kinema's own.
    Shapes: texts (B, P, D), those of all events one behind the other; real (B, P); progress t~/L (B, T); features
    (B', L, D).
    Raises: KinemaError at start, without a prompt, for events that overlap, or without weights for the model.
    """

    network: ClassVar[type[AdapterNetwork]] = MinTNetwork
    condition: ClassVar[str] = "events"
    follows_times: ClassVar[bool] = True

    joint: bool = True
    text_share: float = 0.25

    def given(self, run: Run) -> Mapping[str, Tensor]:
        c, b = run.conditions, run.backbone
        said = [spans_of(request.events, c.num_frames, c.fps) for request in run.requests]
        texts, spans = zip(*said, strict=True)
        return told(b, texts, spans, middles(c.num_frames, c.fps, b.frames_per_latent), ahead=b.padding)


def spans_of(timeline: Timeline | None, num_frames: int, fps: float) -> tuple[list[str], list[Span]]:
    """Texts and times, in seconds, of the events of a clip. Raises: KinemaError for none, and for two at once."""
    if timeline is None:
        raise KinemaError("mint shows events at their times, and there is no prompt; say what happens")
    events = in_turn(timeline.over(num_frames / fps, fps)).events
    return [event.text for event in events], [event.span for event in events]


def in_turn(timeline: Timeline) -> Timeline:
    """The same timeline. Raises: KinemaError for two events at once."""
    for before, event in pairwise(timeline):
        if event.span[0] < before.span[1] - CLOSE:
            raise KinemaError(
                f"{event.text!r} happens while {before.text!r} does, and mint shows one event at a time; "
                "let one follow the other"
            )
    return timeline


def told(
    backbone: Any, texts: Sequence[Sequence[str]], spans: Sequence[Sequence[Span]], times: Tensor, ahead: int = 0
) -> dict[str, Tensor]:
    """What the network is given of the events of each sample; times: the middles of latent frames, seconds.

    ahead: latent frames before the clip's first.
    """
    words = list(dict.fromkeys(text for each in texts for text in each))
    read = backbone.encode_texts(words)
    embedded = read["text"].float()
    real = read["text_mask"].bool() if "text_mask" in read else embedded.any(-1)
    used = real.any(dim=0)
    embedded, real = embedded[:, used], real[:, used]
    most = max(map(len, texts))
    row = torch.tensor([[words.index(t) for t in each] + [0] * (most - len(each)) for each in texts])
    there = torch.tensor([[n < len(each) for n in range(most)] for each in texts])
    placed = torch.tensor([[*each, *[NEVER] * (most - len(each))] for each in spans], dtype=torch.float64)
    passed = progress(placed, times.to(placed).expand(len(texts), -1)).float()
    row, there = row.to(embedded.device), there.to(embedded.device)
    middle = (torch.arange(most, device=embedded.device) + 0.5).repeat_interleave(embedded.shape[1])
    return {
        "texts": embedded[row].flatten(1, 2),
        "real": (real[row] & there[..., None]).flatten(1),
        "places": middle.expand(len(texts), -1),
        "progress": F.pad(passed, (ahead, 0)).to(embedded.device),
    }
