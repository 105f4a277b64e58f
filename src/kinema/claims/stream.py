"""Whether STREAM tells time from space: shuffled frames should move T and not F, a blur F and not T.

    python -m kinema.claims.stream --clips 256

Clips of kinema.world, 16 frames of 128x128, each set beside the same reference, by features of EfficientNet:

- `itself`: the reference. T, F and D are 1.
- `other scenes`: as many independent clips of the same distribution. Its T is the floor: what a set of this size
  reaches when nothing is wrong with it. It grows with the size.
- `shuffled`: the reference with the frames of each clip in an order of its own, drawn at random.
- `blurred`: the reference under the corruption `blur`, unless told otherwise at grade 1: sigma 1/25 of the edge.
- `repeated`: a tenth of the clips of the reference, again and again.

Bars: shuffled, F within 0.02 of that of `itself` and T below the floor by at least 0.3; blurred, F lower by at least
0.5 and T above the floor; repeated, F within 0.02 and D lower by at least 0.5.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import torch
import typer

from kinema.metrics.corruptions.picture import blur
from kinema.metrics.distribution.stream import stream_d, stream_f, stream_t
from kinema.metrics.extractors.extractor import Extractor, load_extractor
from kinema.metrics.viewing import Viewing
from kinema.world.curricula import CURRICULA
from kinema.world.motion import simulate
from kinema.world.render import render_frames
from kinema.world.sample import sample_spec

SEED = 3_300_000_000  # the scenes have seeds from here on, first those of the reference
FRAMES = 16
BATCH = 32  # scenes
STILL = 0.02  # F may move by so much where the pictures are the same
BELOW = 0.3  # T falls so far below the floor when the frames are shuffled
DROP = 0.5  # F falls so far under a blur, D when scenes are repeated


@dataclass(frozen=True)
class Stream:
    """What STREAM says of one set beside the reference."""

    t: float
    f: float
    d: float


def rendered(first: int, count: int) -> Iterator[np.ndarray]:
    """Frames (16, 128, 128, 3) uint8 of held-out scenes with the seeds SEED + first and on."""
    part = replace(CURRICULA["first"], num_frames=FRAMES)
    for start in range(first, first + count, BATCH):
        seeds = range(SEED + start, SEED + min(start + BATCH, first + count))
        state, _ = simulate([sample_spec(seed, part, "held_out") for seed in seeds])
        yield from render_frames(state).numpy()


def compare(made: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> Stream:
    """Both are features (T, D) of each clip."""
    return Stream(*(metric(made, reference) for metric in (stream_t, stream_f, stream_d)))


def measure(count: int, extractor: Extractor, grade: float = 1.0) -> dict[str, Stream]:
    """Every set beside the reference. Features are of single frames, so that other orders need no second look."""
    clean, blurred = [], []
    for frames in rendered(0, count):
        clean.append(extractor.frames(frames))
        blurred.append(extractor.frames(blur(Viewing(frames), grade).frames))
    rng = np.random.default_rng(0)
    made = {
        "itself": clean,
        "other scenes": [extractor.frames(frames) for frames in rendered(count, count)],
        "shuffled": [features[rng.permutation(FRAMES)] for features in clean],
        "blurred": blurred,
        "repeated": [clean[i % max(1, count // 10)] for i in range(count)],
    }
    return {name: compare(features, clean) for name, features in made.items()}


def verdicts(found: dict[str, Stream]) -> dict[str, bool]:
    """The claims in words, and whether each holds."""
    clean, floor = found["itself"], found["other scenes"].t
    shuffled, blurred, repeated = (found[name] for name in ("shuffled", "blurred", "repeated"))
    return {
        "shuffling moves T and not F": abs(shuffled.f - clean.f) <= STILL and shuffled.t <= floor - BELOW,
        "blurring moves F and not T": blurred.f <= clean.f - DROP and blurred.t > floor,
        "repeating moves D and not F": abs(repeated.f - clean.f) <= STILL and repeated.d <= clean.d - DROP,
    }


def main(
    clips: Annotated[int, typer.Option(min=20, help="Clips in each set.")] = 256,
    grade: Annotated[float, typer.Option("--blur", min=0.05, max=1.0, help="Grade of the blur.")] = 1.0,
) -> None:
    """Measure STREAM on sets with known faults; exit code 1 when it does not tell them apart."""
    found = measure(clips, load_extractor("efficientnet"), grade)
    print(f"{clips} clips a set, {FRAMES} frames\n\n| set | T | F | D |\n|---|---|---|---|")
    for name, each in found.items():
        print(f"| {name} | {each.t:.3f} | {each.f:.3f} | {each.d:.3f} |")
    claims = verdicts(found)
    print("\n" + "\n".join(f"{claim}: {'yes' if holds else 'NO'}" for claim, holds in claims.items()))
    if not all(claims.values()):
        raise typer.Exit(1)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    typer.run(main)
