"""Order of events: whether what the prompt asks for comes in the order in which it asks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from kinema.metrics.asked import asked, reading, rows
from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.judge import event_word
from kinema.metrics.metric import metric
from kinema.metrics.viewing import Viewing


def numbered(words: Sequence[str]) -> list[tuple[str, int]]:
    """Words with how often each came before, so that the second "jump" is another event than the first."""
    return [(word, words[:i].count(word)) for i, word in enumerate(words)]


def pairs_in_order(wanted: Sequence[str], found: Sequence[str]) -> float | None:
    """Share of the pairs of wanted events that are found, the earlier one first; None for fewer than two events."""
    places = {event: i for i, event in enumerate(numbered(found))}
    pairs = list(combinations(numbered(wanted), 2))
    if not pairs:
        return None
    return sum(a in places and b in places and places[a] < places[b] for a, b in pairs) / len(pairs)


@metric(
    "event_order",
    unit="share of pairs",
    low=0,
    high=1,
    better="higher",
    source="(Kendall's tau, 1938, doi:10.1093/biomet/30.1-2.81, plus 1) / 2, with events that are not found as wrong",
    extractor="world",
    needs=("prompt",),
    sees="wrong_order",
    ignores="synonyms",
)
def event_order(clip: Viewing, extractor: Extractor) -> float | None:
    """Share of the pairs of events asked for that the judge reads, and in the order asked for.

    None where the prompt asks for fewer than two events, or for events that the judge cannot tell.
    """
    if "events" not in rows(clip, extractor):
        return None
    wanted = [event_word(label) for label in asked(clip).words.events]
    return pairs_in_order(wanted, [event.word for event in reading(clip, extractor).events])
