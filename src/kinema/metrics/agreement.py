"""What a prompt asked for beside what the judge read: which attributes agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kinema.metrics.judge import JudgeConfig, Reading, event_word
from kinema.world.reading import ReadCaption, ReadObject

Pair = tuple[str | None, str | None]  # kind, colour
ATTRIBUTES = ("kind", "colour", "ground", "sky", "events", "camera")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One attribute. `right` is None where the prompt does not say."""

    attribute: str  # one of ATTRIBUTES
    asked: str | None
    read: str
    confidence: float  # the judge's, 0..1; of several events the least
    right: bool | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare(asked: ReadCaption, reading: Reading) -> list[Row]:
    """Rows for all attributes, those of ATTRIBUTES in order; events agree only when all do, in their order.

    Of several objects asked for, kind and colour of each have to be found among the objects read, each once.
    """
    wanted: list[Pair] = [(o.kind, o.colour) for o in asked.objects] or [(asked.kind, asked.colour)]
    found: list[Pair] = [(o.kind.word, o.colour.word) for o in reading.objects]
    sure = min((o.kind.confidence for o in reading.objects), default=0.0)
    sure_colour = min((o.colour.confidence for o in reading.objects), default=0.0)
    rows = [
        _row("kind", _join(k for k, _ in wanted), _join(k for k, _ in found), sure, _among(wanted, found, 0)),
        _row("colour", _join(c for _, c in wanted), _join(c for _, c in found), sure_colour, _among(wanted, found, 1)),
    ]
    for name in ("ground", "sky"):
        guess, word = getattr(reading, name), getattr(asked, name)
        rows.append(_row(name, word, guess.word, guess.confidence, guess.word == word))
    events = [event_word(label) for label in asked.events]
    read = [e.word for e in reading.events]
    least = min((e.confidence for e in reading.events), default=0.0)
    rows.append(_row("events", ", then ".join(events), ", then ".join(read) or "none", least, events == read))
    camera = reading.camera
    rows.append(_row("camera", asked.camera, camera.word, camera.confidence, camera.word == asked.camera))
    return rows


def all_right(rows: Sequence[Row]) -> bool:
    """Whether everything that was asked for was read."""
    return all(row.right is not False for row in rows)


def unknown_words(asked: ReadCaption, config: JudgeConfig) -> list[str]:
    """Words asked for that the judge cannot say; what it reads says nothing about them."""
    known: dict[str, Sequence[str]] = {
        "kind": config.kinds,
        "colour": config.colours,
        "ground": config.grounds,
        "sky": config.skies,
        "events": config.events,
        "camera": config.cameras,
    }
    return [word for name, words in asked_words(asked).items() for word in words if word not in known[name]]


def asked_words(asked: ReadCaption) -> dict[str, list[str]]:
    """For each of ATTRIBUTES the judge's words for what the prompt says; none where it does not say."""
    things = asked.objects or (ReadObject(kind=asked.kind, colour=asked.colour),)
    said: dict[str, list[str | None]] = {
        "kind": [o.kind for o in things],
        "colour": [o.colour for o in things],
        "ground": [asked.ground],
        "sky": [asked.sky],
        "events": [event_word(label) for label in asked.events],
        "camera": [asked.camera],
    }
    return {name: [word for word in words if word is not None] for name, words in said.items()}


def beyond(asked: ReadCaption, config: JudgeConfig) -> set[str]:
    """Attributes of which the judge cannot tell: a word is not its own, or there are more of them than it looks for."""
    strange = set(unknown_words(asked, config))
    words = asked_words(asked)
    most = {"kind": config.objects, "colour": config.objects, "events": config.event_slots}
    return {name for name in ATTRIBUTES if strange & set(words[name]) or len(words[name]) > most.get(name, 1)}


def _row(attribute: str, asked: str | None, read: str, confidence: float, right: bool) -> Row:
    said = asked or None
    return Row(
        attribute=attribute,
        asked=said,
        read=read or "none",
        confidence=round(confidence, 4),
        right=right if said is not None else None,
    )


def _join(words: Any) -> str:
    return " + ".join(word for word in words if word)


def _among(wanted: Sequence[Pair], found: Sequence[Pair], place: int) -> bool:
    """Whether the words asked for at one place (0 kind, 1 colour) are those of different objects read."""
    left = [pair[place] for pair in found]
    for pair in wanted:
        if pair[place] is None:
            continue
        if pair[place] not in left:
            return False
        left.remove(pair[place])
    return True
