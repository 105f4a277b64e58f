"""Scenes for claims about where things are and how they go: planned, drawn, and drawn roughly."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from kinema.claims.bench.claim import COSTS, Case, Numbers
from kinema.core.footage import as_video
from kinema.metrics.metric import Metric, metrics
from kinema.metrics.viewing import Viewing
from kinema.world.caption import noun_phrase
from kinema.world.look import GROUND_LOOKS, SKY_LOOKS
from kinema.world.motion import simulate
from kinema.world.render import render
from kinema.world.sample import sample_spec
from kinema.world.spec import SceneSpec
from kinema.world.vocabulary import COLOURS, DIRECTED, DIRECTIONS
from kinema.world.words import GROUND_PHRASES, SKY_PHRASES

if TYPE_CHECKING:
    from kinema.backbones.protocol import Backbone

FIRST_SEED = 4_000_000_000  # of these scenes, none of which was trained on


@functools.lru_cache(maxsize=8)
def one_goes(count: int, directions: tuple[str, ...] = DIRECTIONS) -> tuple[SceneSpec, ...]:
    """The first scenes of one thing that rolls or slides one of these ways, before a camera that stands still."""
    drawn = (sample_spec(seed, "first", "held_out") for seed in itertools.count(FIRST_SEED))
    fit = (
        spec
        for spec in drawn
        if len(spec.events) == 1
        and spec.events[0].action in DIRECTED
        and spec.events[0].direction in directions
        and spec.camera.move == "still"
        and (spec.objects[0].colour, spec.ground) != ("white", "snow")  # which is hard to see
    )
    return tuple(itertools.islice(fit, count))


def thing(spec: SceneSpec) -> str:
    """In words without an article: "red ball"."""
    return noun_phrase(spec.objects[0], None, "").strip()


def at_rest(spec: SceneSpec) -> str:
    """The thing and where it is, and not what it does: "a red ball on the grass by day"."""
    return f"{noun_phrase(spec.objects[0], None, 'a')} {GROUND_PHRASES[spec.ground][0]} {SKY_PHRASES[spec.sky][0]}"


@functools.lru_cache(maxsize=64)
def drawn(spec: SceneSpec) -> tuple[np.ndarray, np.ndarray]:
    """The clip (T, H, W, 3) uint8, and which thing is where (T, H, W): -1 is the sky, 0 the ground."""
    found = render(simulate([spec])[0])
    return found.frames[0].numpy(), found.mask[0].numpy()


def flat(spec: SceneSpec) -> np.ndarray:
    """The same scene as a rough sketch (T, H, W, 3) uint8: every thing in one colour, without light and shadow."""
    looks = [SKY_LOOKS[spec.sky].zenith, GROUND_LOOKS[spec.ground].base, *(COLOURS[o.colour] for o in spec.objects)]
    palette = np.rint(255 * np.array(looks)).astype(np.uint8)
    found: np.ndarray = palette[drawn(spec)[1].astype(int) + 1]
    return found


def elsewhere(specs: tuple[SceneSpec, ...], number: int) -> SceneSpec:
    """Another scene of the list, with a thing of another kind and colour."""
    here = specs[number]
    others = itertools.chain(specs[number + 1 :], specs[:number], one_goes(64))
    return next(
        o for o in others if o.objects[0].kind != here.objects[0].kind and o.objects[0].colour != here.objects[0].colour
    )


def painter_of(backbone: Backbone, prompt: str, seed: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Paints latents (1, C, T, H, W) anew as that model would, see `kinema.training.painting`."""
    from kinema.training.denoising import Predictor
    from kinema.training.painting import Painter

    paint, generator = Painter(Predictor(backbone)), torch.Generator().manual_seed(seed)
    return lambda z: paint(z, [prompt], generator)


def read_drawn(
    backbone: Backbone,
    case: Case,
    film: Callable[[SceneSpec], np.ndarray],
    judged: Collection[str],
    readers: Mapping[str, Callable[[Viewing, Case], float | None]],
    change: Callable[[torch.Tensor], torch.Tensor] = lambda z: z,
) -> Numbers:
    """What metrics and readers see of a case's scene after the autoencoder; it costs nothing.

    film: a scene to its clip (T, H, W, 3) uint8; change: what is done to its latents (1, C, T, H, W) before.
    """
    assert case.spec is not None
    d = backbone.defaults
    spec = dataclasses.replace(case.spec, num_frames=d.num_frames, height=d.height, width=d.width, fps=d.fps)
    seen = backbone.decode(change(backbone.encode(as_video(torch.from_numpy(film(spec))[None]))))[0].numpy()
    clip = Viewing(seen, spec.fps, prompt=case.text)
    found = {name: metric(clip) for name, metric in metrics().items() if name in judged and isinstance(metric, Metric)}
    return {**dict.fromkeys(COSTS), **found, **{name: read(clip, case) for name, read in readers.items()}}
