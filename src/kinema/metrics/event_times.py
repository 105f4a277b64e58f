"""When the events that the judge reads begin and end.

A small head on the judge, whose own weights and answers it leaves as they are: for each event it weighs the frames
that the judge looked at, once for the start and once for the end, and the weighted mean of their places is the time.
It is trained on rendered clips, whose events have exact times, some of them painted anew by `mini` (`kinema train
event_times`), and measured again by
`python -m kinema.claims.sight`. It is a network of our own; no paper is followed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinema.core.errors import KinemaError
from kinema.layers.saved import read_network, write_network
from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.judge import NONE, Judge, JudgeNet
from kinema.metrics.viewing import Viewing

AT_ONCE = 4  # clips: a long one is read in many parts, and should not need more memory than its making


@dataclass(frozen=True)
class TimedEvent:
    """Something that happens in a clip; start and end in seconds from its first frame, confidence 0..1 of the word."""

    word: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True, kw_only=True)
class TimesConfig:
    """Sizes of the head, and the judge that it belongs to. Saved as `config.json` beside the weights."""

    judge: str  # see `fingerprint`
    tokens: int = 128  # width of the judge's tokens
    events: int = 10  # words of the judge
    width: int = 64
    layers: int = 3  # each mixes a frame with the two before and after it


def fingerprint(net: JudgeNet) -> str:
    """Twelve hexadecimal digits that tell a judge from every other one, from its weights in float16."""
    told = hashlib.sha256()
    for name, value in sorted(net.state_dict().items()):
        told.update(name.encode() + value.detach().cpu().half().contiguous().numpy().tobytes())
    return told.hexdigest()[:12]


class TimesNet(nn.Module):
    """The head; see the top of this file."""

    def __init__(self, config: TimesConfig) -> None:
        super().__init__()
        self.config = config
        d = config.width
        self.frame = nn.Linear(config.tokens, d)
        self.event = nn.Linear(config.tokens, d)
        self.word = nn.Linear(config.events, d, bias=False)
        self.norms = nn.ModuleList([nn.LayerNorm(d) for _ in range(config.layers)])
        self.mix = nn.ModuleList([nn.Conv1d(d, d, 5, padding=2) for _ in range(config.layers)])
        self.norm = nn.LayerNorm(d)
        self.weigh = nn.Linear(d, 2)

    def forward(self, token: Tensor, happening: Tensor, event: Tensor) -> Tensor:
        """What the judge made of frames (B, T, D) and events (B, E, D), and its words (B, E, K) as log odds.

        Gives start and end of each event, (B, E, 2), as a part of the way from the first frame, 0, to the last, 1.
        """
        asked = self.event(happening) + self.word(event.softmax(-1))  # (B, E, d)
        x = (self.frame(token)[:, None] + asked[:, :, None]).flatten(0, 1)  # (BE, T, d)
        for norm, mix in zip(self.norms, self.mix, strict=True):
            x = x + mix(F.gelu(norm(x)).transpose(1, 2)).transpose(1, 2)
        weight = self.weigh(F.gelu(self.norm(x))).float().softmax(1)  # (BE, T, 2)
        place = torch.linspace(0, 1, x.shape[1], device=x.device)
        return torch.unflatten((weight * place[:, None]).sum(1), 0, happening.shape[:2])


class EventTimer:
    """Times what a judge reads. `EventTimer.load(judge)` gives the head that ships with kinema."""

    def __init__(self, net: TimesNet, judge: Judge, card: dict[str, Any] | None = None) -> None:
        """Raises: KinemaError when the head belongs to another judge."""
        if net.config.judge != fingerprint(judge.net):
            raise KinemaError(
                "these event times were learned on another judge; train them again with `kinema train event_times`"
            )
        self.net, self.judge, self.card = net.eval(), judge, card or {}

    @classmethod
    def load(cls, judge: Judge, path: str | Path | None = None) -> EventTimer:
        """Reads `config.json`, `model.safetensors` and (if there) `card.json` of a folder; without one, kinema's own.

        Raises: KinemaError when a file is missing or damaged, or belongs to another judge.
        """
        net, card = read_network("event_times", path, lambda config: TimesNet(TimesConfig(**config)))
        return cls(net.to(judge.device), judge, card)

    def save(self, path: str | Path) -> None:
        """Writes config.json, model.safetensors (float16) and card.json into a folder, each whole or not at all."""
        write_network(path, self.net, self.net.config, self.card)

    @torch.inference_mode()
    def read(self, clips: Sequence[Any], fps: float) -> list[list[TimedEvent]]:
        """Clips, each (T, H, W, 3) uint8 -> the events of each in their order, as the judge reads them, with times.

        `fps` in frames per second. The times lie between the first and the last frame.
        """
        logits = self.judge.logits(clips, batch=AT_ONCE)
        inside = [logits[name].to(self.judge.device) for name in ("token", "happening", "event")]
        places = self.net(*inside).cpu()
        sure, index = logits["event"].float().softmax(-1).max(-1)
        found = []
        for i, clip in enumerate(clips):
            length = (len(clip) - 1) / fps
            slots = [
                TimedEvent(self.judge.config.events[word], start * length, max(start, end) * length, round(chance, 4))
                for word, (start, end), chance in zip(
                    index[i].tolist(), places[i].tolist(), sure[i].tolist(), strict=True
                )
            ]
            found.append(as_one([event for event in slots if event.word != NONE]))
        return found


def as_one(events: Sequence[TimedEvent]) -> list[TimedEvent]:
    """The same word twice in a row is one event, from the first start to the last end, as `judge.in_a_row` has it."""
    found: list[TimedEvent] = []
    for event in events:
        if found and found[-1].word == event.word:
            before = found[-1]
            start, end = min(before.start, event.start), max(before.end, event.end)
            found[-1] = replace(before, start=start, end=end, confidence=max(before.confidence, event.confidence))
        else:
            found.append(event)
    return found


def timer_of(extractor: Extractor) -> EventTimer:
    """The timer that an extractor has. Raises: KinemaError for another than `world`, whose judge reads events."""
    from kinema.metrics.extractors.world import World

    if not isinstance(extractor, World):
        raise KinemaError(f"extractor {extractor.name!r} reads no events; use 'world'")
    return extractor.timer


def event_times(clip: Viewing, extractor: Extractor) -> list[TimedEvent]:
    """The events of a clip in their order, with start and end in seconds, from one look at the whole clip.

    Raises: KinemaError for another extractor than `world`, whose judge reads events.
    """
    timer = timer_of(extractor)
    return clip.once(("event_times", extractor.label), lambda: timer.read([clip.frames], clip.fps)[0])
