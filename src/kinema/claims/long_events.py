"""How well times of events are read in rendered clips that are longer than those the judge was trained on.

    python -m kinema.claims.long_events --count 24

Scenes of curriculum "first" with several events in a row: as drawn, where one follows the other at once, and moved,
where they are shorter and have pauses between them. The judge was trained on 25 frames with at most two events.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import numpy as np
import torch
import typer

from kinema.claims import options
from kinema.claims.sight import mean, moved
from kinema.files import write_text
from kinema.metrics.event_times import TimedEvent, as_one
from kinema.metrics.extractors.world import World
from kinema.metrics.judge import event_word
from kinema.metrics.long_clips import read_times
from kinema.metrics.prompt.event_timing import matched
from kinema.training.judge import TEST_SEED
from kinema.world.curricula import FIRST
from kinema.world.motion import simulate
from kinema.world.render import render_frames
from kinema.world.sample import sample_spec
from kinema.world.spec import SceneSpec

# Frames, events and things; the judge was trained on one thing.
CASES = ((50, 2, 1), (50, 3, 1), (97, 3, 1), (97, 4, 1), (97, 6, 1), (97, 4, 2))


@dataclass(eq=False)
class Found:
    """What was read of clips of one kind."""

    asked: int = 0
    read: int = 0
    start: list[float] = field(default_factory=list)  # seconds that found events begin too early or too late
    end: list[float] = field(default_factory=list)

    def add(self, wanted: list[TimedEvent], read: list[TimedEvent]) -> None:
        both = [(a, b) for a, b in matched(wanted, read) if b is not None]
        self.asked += len(wanted)
        self.read += len(read)
        self.start += [abs(a.start - b.start) for a, b in both]
        self.end += [abs(a.end - b.end) for a, b in both]

    def to_dict(self) -> dict[str, Any]:
        return {
            "events": self.asked,
            "found": round(len(self.start) / max(self.asked, 1), 3),
            "of_those_read": round(len(self.start) / max(self.read, 1), 3),
            "start_mean": mean(self.start),
            "start_median": round(float(np.median(self.start)), 4),
            "end_mean": mean(self.end),
            "end_median": round(float(np.median(self.end)), 4),
        }


def scenes(count: int, frames: int, events: int, seed: int, things: int = 1) -> Iterator[SceneSpec]:
    """So many scenes of this length with so many events in a row; a seed whose scene does not fit is left out."""
    curriculum = replace(FIRST, num_frames=frames, event_weights=only(events), object_weights=only(things))
    while count:
        seed += 1
        try:
            yield sample_spec(seed, curriculum, "all")
        except ValueError:  # it does not fit into the picture
            continue
        count -= 1


def only(count: int) -> tuple[float, ...]:
    """Weights of a curriculum for always so many."""
    return (0.0,) * (count - 1) + (1.0,)


def measure(reader: World, specs: Iterator[SceneSpec] | list[SceneSpec]) -> Found:
    """Read rendered scenes."""
    found = Found()
    for spec in specs:
        frames = render_frames(simulate([spec])[0])[0].cpu().numpy()
        told = sorted(spec.events, key=lambda event: event.start)
        wanted = as_one([TimedEvent(event_word(e.label), e.start, e.end, 1.0) for e in told])
        found.add(wanted, read_times(reader.timer, frames, spec.fps))
    return found


def main(
    count: Annotated[int, typer.Option(min=1, help="Clips of each kind.")] = 24,
    seed: options.Seed = TEST_SEED + 1_000_000,
    as_json: options.AsJson = None,
) -> None:
    """Measure how often events of long rendered clips are found, and how far their times are off."""
    reader, numbers = World(""), {}
    for frames, events, things in CASES:
        specs = list(scenes(count, frames, events, seed, things))
        for which, drawn in (("as drawn", specs), ("moved", [moved(spec) for spec in specs])):
            name = f"{frames} frames, {events} events{' of two things' * (things == 2)} {which}"
            numbers[name] = measure(reader, drawn).to_dict()
            print(f"{name:46}", ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in numbers[name].items()))
    if as_json is not None:
        write_text(as_json, json.dumps(numbers, indent=2) + "\n")


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    typer.run(main)
