"""Reads clips of several things with a judge that has learned clips of one.

Sight finds the things; where two have run together in the picture from the start, their colours tell them apart. What
the judge reads of each is read in the clip with all others painted over, its colour is the word of its pixels, and the
ground, the sky and the camera are read in the clip as it is. Things of one colour that touch in all frames count as
one. Of 32 rendered scenes of two things that are seen apart, kind and colour of both are read rightly in 30, all events
in 24; `python -m kinema.claims.adherence --objects 2` prints it for its own beside every model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kinema.metrics.event_times import TimedEvent
from kinema.metrics.extractors.world import World
from kinema.metrics.judge import NONE, Guess, ObjectReading, Reading
from kinema.metrics.objects import SURE, colour_indices, tracks
from kinema.metrics.things import shown_alone
from kinema.world.vocabulary import COLOURS

SHARE = 0.16  # of a thing's pixels from which a second colour is another thing; light and shadow stay below
SHARED = 0.5  # of the shorter of two events, the time that both take, from which they are at once
VOTERS = 600  # pixels, evenly from all frames, that tell the colours


class SeveralReader:
    """As `Judge` reads clips of one thing, so this reads clips of up to `most`, the largest first."""

    def __init__(self, world: World, most: int = 2) -> None:
        self.world, self.most = world, most

    def read_batch(self, clips: Sequence[Any], fps: float = 8.0) -> list[Reading]:
        """Clips, each (T, H, W, 3) uint8, also of different sizes -> a Reading for each."""
        return [self.read(np.asarray(clip), fps) for clip in clips]

    def read(self, frames: np.ndarray, fps: float = 8.0) -> Reading:
        """One clip (T, H, W, 3) uint8. Events are those of all things, by the time at which they start."""
        whole = self.world.judge.read(frames, fps)
        found = self.things(frames)
        if not found:
            return Reading((), whole.ground, whole.sky, whole.camera, (), whole.seconds)
        masks = np.stack([mask for mask, _ in found], 1)  # (T, N, H, W)
        clips = [
            np.stack([shown_alone(frame, mask, thing) for frame, mask in zip(frames, masks, strict=True)])
            for thing in range(len(found))
        ]
        readings = self.world.judge.read_batch(clips, fps)
        kinds = [reading.objects[0].kind if reading.objects else Guess(NONE, 0.0) for reading in readings]
        objects = tuple(ObjectReading(kind, colour) for kind, (_, colour) in zip(kinds, found, strict=True))
        happening = tuple(Guess(e.word, e.confidence) for e in in_turns(self.world.timer.read(clips, fps)))
        return Reading(objects, whole.ground, whole.sky, whole.camera, happening, whole.seconds)

    def things(self, frames: np.ndarray) -> list[tuple[np.ndarray, Guess]]:
        """Masks (T, H, W) bool of the things with their colours, the largest first."""
        found = [
            part for track in tracks(frames, self.world.mask(frames) > SURE) for part in by_colour(frames, track.mask)
        ]
        return sorted(found, key=lambda part: -int(part[0].sum()))[: self.most]


def by_colour(frames: np.ndarray, mask: np.ndarray) -> list[tuple[np.ndarray, Guess]]:
    """A mask (T, H, W) bool apart by the colours in it that have a share of 16% or more, with share as confidence."""
    pixels = frames[mask] / 255
    some = pixels[np.linspace(0, len(pixels) - 1, min(len(pixels), VOTERS)).round().astype(int)]
    shares = np.bincount(colour_indices(some), minlength=len(COLOURS)) / len(some)
    words = np.flatnonzero(shares >= SHARE).tolist() or [int(shares.argmax())]
    guesses = [Guess(list(COLOURS)[word], round(float(shares[word]), 4)) for word in words]
    if len(words) == 1:
        return [(mask, guesses[0])]
    parts = np.zeros((len(words), *mask.shape), dtype=bool)
    for t in np.flatnonzero(mask.any((1, 2))):
        nearest = colour_indices(frames[t][mask[t]] / 255, words)
        for part, word in zip(parts, words, strict=True):
            part[t][mask[t]] = nearest == word
    return list(zip(parts, guesses, strict=True))


def in_turns(things: Sequence[Sequence[TimedEvent]]) -> list[TimedEvent]:
    """What happens in a scene, in order, of what was read of each thing.

    The judge has never seen a thing at rest, and says of it too that it does something. In the world one thing happens
    after the other: of events of two things that share half of the shorter's time, the one read more surely is kept.
    """
    found: list[tuple[int, TimedEvent]] = []
    each = [(thing, event) for thing, events in enumerate(things) for event in events]
    for thing, event in sorted(each, key=lambda pair: -pair[1].confidence):
        if all(thing == other or _shared(event, kept) < SHARED for other, kept in found):
            found.append((thing, event))
    return [event for _, event in sorted(found, key=lambda pair: pair[1].start)]


def _shared(a: TimedEvent, b: TimedEvent) -> float:
    """The time that both take, as a part of the shorter one's."""
    both = min(a.end, b.end) - max(a.start, b.start)
    return max(0.0, both) / max(min(a.end - a.start, b.end - b.start), 1e-6)
