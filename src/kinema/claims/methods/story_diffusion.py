"""StoryDiffusion: one thing through several shots, in the places that the prompts say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kinema.claims.bench.claim import Arm, Case, Claim, Comparison
from kinema.claims.bench.scenes import one_goes
from kinema.metrics.asked import judge_of
from kinema.metrics.extractors.extractor import load_extractor
from kinema.metrics.staging import hues_apart
from kinema.metrics.viewing import Viewing
from kinema.world.words import GROUND_PHRASES, NOUNS

PLACES = ("grass", "sand", "snow", "wood")  # of the shots, beginning with another one in each case


def places(number: int) -> list[str]:
    return [PLACES[(number + i) % len(PLACES)] for i in range(len(PLACES))]


def stories(count: int, backbone: Any) -> Sequence[Case]:
    """A thing in four places, with a colour in the first shot alone: in the others it is the model's to choose."""
    cases = []
    for number, spec in enumerate(one_goes(count)):
        noun = NOUNS[spec.objects[0].kind][0]
        things = [f"a {spec.objects[0].colour} {noun}", *[f"a {noun}"] * (len(PLACES) - 1)]
        texts = [f"{what} {GROUND_PHRASES[place][0]}" for what, place in zip(things, places(number), strict=True)]
        parts = [f"{100 * i // len(texts)}-{100 * (i + 1) // len(texts)}%: {text}" for i, text in enumerate(texts)]
        cases.append(Case(text=" | ".join(parts), spec=spec))
    return cases


def shots(clip: Viewing) -> list[Viewing]:
    """The shots are of equal length."""
    size = len(clip) // len(PLACES)
    return [clip.but(frames=clip.frames[i * size : (i + 1) * size]) for i in range(len(PLACES))]


def subject_apart(clip: Viewing, case: Case) -> float | None:
    """Mean distance between the colours of the subject in two shots, 0 alike .. 1."""
    return hues_apart(shots(clip), load_extractor("world"))


def places_right(clip: Viewing, case: Case) -> float:
    """Share of the shots in which the judge reads the place that its prompt says."""
    wanted = [next(p for p in PLACES if GROUND_PHRASES[p][0] in part) for part in case.text.split(" | ")]
    read = judge_of(load_extractor("world")).read_batch([shot.frames for shot in shots(clip)], clip.fps)
    return sum(found.ground.word == place for found, place in zip(read, wanted, strict=True)) / len(wanted)


CLAIM = Claim(
    name="story_diffusion",
    says="a thing looks alike in several shots, and each shot is where its prompt says",
    paper="steadier subjects than IP-Adapter and PhotoMaker with Stable Diffusion XL; no figure for the method alone",
    arms=(
        Arm(name="shots apart", techniques=("story_diffusion:rate=0.0",)),
        Arm(name="story", techniques=("story_diffusion",)),
        Arm(name="all blocks", techniques=("story_diffusion:block_range=[0,6]",)),
        Arm(name="all tokens", techniques=("story_diffusion:rate=1.0,early=1.0,late=1.0",)),
    ),
    baseline="shots apart",
    method="story",
    main=Comparison(measure="hues apart", arm="story", against="shots apart", better="lower"),
    guards=(
        Comparison(measure="hues apart", arm="story", against="shots apart", better="lower", share=-0.5),
        Comparison(measure="places right", arm="story", against="shots apart", better="higher", slack=0.1),
    ),
    measures={"hues apart": subject_apart, "places right": places_right},
    request={"num_frames": 25 * len(PLACES)},
    cases=stories,
    steps=20,
    notes={
        "mini": "Places are all right, and things no more alike. mini has seen no caption without a colour: without "
        "one it draws things dark, small or not at all, and takes none from the other shots, not even from all "
        "their tokens in all blocks and steps; with the colour in each prompt things are alike by themselves.",
    },
)
