"""From a seed to a scene: which objects stand where, what happens to them, how the camera moves.

A `Curriculum` (`world/curricula.py`) says which part of the world may be drawn; `sample_spec` draws one scene from it.
Everything comes from one `random.Random(seed)`, whose stream Python keeps stable, so a seed means the same scene on any
machine.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Literal, TypeVar

from kinema.core.camera import LOWEST_EYE, RISE, CameraLeg
from kinema.world.curricula import PRIMITIVES, Curriculum, get_curriculum
from kinema.world.layout import Layout, place
from kinema.world.spec import CameraSpec, EventSpec, ObjectSpec, SceneSpec
from kinema.world.textures import DRAWINGS
from kinema.world.vocabulary import (
    COLOURS,
    DIRECTED,
    DIRECTIONS,
    GROUNDS,
    KINDS,
)

Split = Literal["train", "held_out", "all"]
T = TypeVar("T")

# Round about the vertical axis: turning them shows only when they carry a pattern.
ROUND = ("ball", "cylinder", "cone")
FLAT = ("picture", "letter")
OPPOSITE = {"left": "right", "right": "left", "towards": "away", "away": "towards"}
LETTERS = "ABCDEFGHJKLMNPRSTUVXYZ"

# Gentle moves for "jump" and "fall": they last as long as gravity makes them, not as long as the clip.
JUMP_SECONDS = (1.1, 1.35)
FALL_SECONDS = (1.5, 2.1)
MIN_EVENT_SECONDS = 0.5
LEG_AMOUNT = (0.3, 1.4)  # sizes of camera legs, times the usual size
# How often an action is drawn, 1 unless given: directed ones count for their directions, and what needs two objects
# and much room is drawn more often because it often does not fit.
WEIGHTS = {"roll": 2.5, "slide": 2.5, "walk": 2.5, "stop": 3.0, "circle": 4.0, "push": 6.0}


def is_held_out(kind: str, colour: str, ground: str) -> bool:
    """Whether a combination is kept out of all training: a fixed eighth of (kind, colour, ground).

    A linear rule modulo 8, so that every kind, colour and ground keeps seven eighths of its combinations, and
    every pair of two of them is still seen in training.
    """
    return (3 * KINDS.index(kind) + 5 * list(COLOURS).index(colour) + GROUNDS.index(ground)) % 8 == 0


def sample_spec(seed: int, curriculum: Curriculum | str = "first", split: Split = "train") -> SceneSpec:
    """Draw the scene of a seed.

    Args:
        seed: any integer; the same seed, curriculum and split give the same scene everywhere.
        curriculum: a `Curriculum` or the name of one in `CURRICULA`.
        split: "train" has no held-out combination at all; in "held_out" the first object is one; "all" draws
            from both.

    Raises:
        ValueError: when the curriculum or the split is not known.
    """
    cur = get_curriculum(curriculum)
    if split not in ("train", "held_out", "all"):
        raise ValueError(f"split is {split!r}; use train, held_out or all")
    rng = random.Random(seed)
    ground, sky = pick(rng, cur.grounds), pick(rng, cur.skies)
    camera = sample_camera(rng, cur)
    may_be_static = bool(camera.legs) or (cur.static_probability > 0 and not cur.leg_weights)
    static = may_be_static and rng.random() < cur.static_probability
    count = 1 + weighted(rng, cur.object_weights)
    for attempt in range(200):
        if camera.legs and attempt:  # what lost the objects from sight
            camera = replace(camera, legs=draw_legs(rng, cur, camera.height))
        objects = [draw_object(rng, cur, ground, split, first=i == 0) for i in range(count)]
        events = [] if static else draw_events(rng, cur, objects, ground, split)
        objects = fit_words(rng, cur, objects, events)
        camera = calm(camera, events)
        layout = Layout(camera=camera, aspect=cur.width / cur.height, duration=cur.duration)
        placed = place(
            rng, objects, events, layout, slack=0.02 * max(0, attempt - 100)
        )  # a narrow picture may not hold it all
        if placed is not None:
            return SceneSpec(
                seed=seed,
                objects=tuple(placed),
                events=tuple(draw_amounts(rng, cur, events)),
                camera=camera,
                ground=ground,
                sky=sky,
                num_frames=cur.num_frames,
                height=cur.height,
                width=cur.width,
                fps=cur.fps,
            )
        count = max(count - 1, 1) if rng.random() < 0.1 else count
    raise ValueError(f"no scene of seed {seed} fits into the picture; use fewer objects or events")


def sample_camera(rng: random.Random, cur: Curriculum) -> CameraSpec:
    moving = [move for move in cur.cameras if move != "still"]
    still = "still" in cur.cameras and (not moving or rng.random() < cur.still_probability)
    camera = CameraSpec(
        move="still" if still or cur.leg_weights else pick(rng, moving),
        distance=round(rng.uniform(6.0, 7.5), 3),
        height=round(rng.uniform(1.6, 2.6), 3),
        azimuth=round(rng.uniform(-0.3, 0.3), 3) if cur.max_objects > 1 else 0.0,
        amount=round(rng.uniform(0.85, 1.15), 3),
    )
    return camera if still or not cur.leg_weights else replace(camera, legs=draw_legs(rng, cur, camera.height))


def draw_legs(rng: random.Random, cur: Curriculum, height: float) -> tuple[CameraLeg, ...]:
    """Different moves of a camera that starts at this height: all at once, or one after the other."""
    moves: dict[str, str] = {}  # word -> the move that stands for both its sides
    for move in cur.cameras:
        if move != "still":
            moves.setdefault(move.split()[0], move)
    chosen = rng.sample(list(moves), min(1 + weighted(rng, cur.leg_weights), len(moves)))
    count, at_once = len(chosen), rng.random() < 0.5
    cuts = [0.0, *(round((i + rng.uniform(-0.2, 0.2)) / count, 3) for i in range(1, count)), 1.0]
    legs = []
    for i, word in enumerate(chosen):
        amount = round(rng.choice((-1, 1)) * rng.uniform(*LEG_AMOUNT), 3)
        if word == "rise":  # down to the lowest eye and no further, so that the path stays smooth
            amount = max(amount, round((LOWEST_EYE - height) / RISE, 3))
        start, end = (0.0, 1.0) if at_once else (cuts[i], cuts[i + 1])
        legs.append(CameraLeg(move=moves[word], amount=amount, start=start, end=end))
    return tuple(legs)


def calm(camera: CameraSpec, events: Sequence[EventSpec]) -> CameraSpec:
    """Smaller camera moves where a whole one would lose what happens: pans against a travel, tilts under a fall."""
    word, _, side = camera.move.partition(" ")
    against = any(e.direction == OPPOSITE.get(side) for e in events)
    if (word == "pan" and against) or (word == "tilt" and any(e.action == "fall" for e in events)):
        return replace(camera, amount=round(0.65 * camera.amount, 3))
    return camera


def draw_object(rng: random.Random, cur: Curriculum, ground: str, split: Split, first: bool) -> ObjectSpec:
    """One object with a colour that the split allows on this ground; it gets its place later."""
    while True:
        kind, colour = pick(rng, cur.kinds), pick(rng, tuple(cur.colours))
        out = is_held_out(kind, colour, ground)
        if split == "all" or (split == "held_out" and (out or not first)) or (split == "train" and not out):
            break
    material = pick(rng, cur.materials) if kind in PRIMITIVES else "matte"
    text = {"letter": pick(rng, LETTERS), "picture": pick(rng, DRAWINGS)}.get(kind, "")
    turn = rng.uniform(-0.5, 0.5) if kind in ("ring", "figure", *FLAT) else rng.uniform(-math.pi, math.pi)
    return ObjectSpec(
        kind=kind,
        colour=colour,
        material=material,
        size=pick(rng, cur.sizes),
        heading=round(turn, 3),
        text=text,
    )


def possible_actions(cur: Curriculum, kind: str, others: int, first: bool, last: bool, previous: str) -> list[str]:
    """The actions that an object of this kind can do next, in the order of ACTIONS."""
    allowed = []
    for action in cur.actions:
        ok = {
            "roll": kind in cur.rollers,
            "slide": kind not in (*cur.rollers, "figure") or (kind == "cylinder" and "shiny" in cur.materials),
            "bounce": kind != "figure",
            "fall": first and kind != "figure",
            "spin": kind not in ROUND or bool({"striped", "checked"} & set(cur.materials)),
            "stop": previous in DIRECTED,
            "appear": first,
            "disappear": last,
            "change colour": kind != "picture",
            "circle": others > 0 and kind not in FLAT,
            "push": others > 0 and kind not in FLAT,
            "walk": kind == "figure",
            "wave": kind == "figure",
        }.get(action, True)
        if ok and (action != previous or action in DIRECTED):
            allowed.append(action)
    return allowed


def draw_events(
    rng: random.Random, cur: Curriculum, objects: Sequence[ObjectSpec], ground: str, split: Split
) -> list[EventSpec]:
    """Events in a row that fill the clip, none when the clip is too short for one."""
    count = 1 + weighted(rng, cur.event_weights)
    count = min(count, int(cur.duration / MIN_EVENT_SECONDS))
    if count == 0:
        return []
    subjects = [0] + [pick(rng, range(len(objects))) if rng.random() < 0.5 else 0 for _ in range(count - 1)]
    colours = [thing.colour for thing in objects]  # as they are by now
    plans: list[EventSpec] = []  # without their times
    for i, subject in enumerate(subjects):
        before = [plan for plan in plans if subject in (plan.subject, plan.target)]
        previous = plans[-1] if before and plans[-1].subject == subject else None
        targets = [
            k
            for k in range(len(objects))
            if k != subject and not any(plan.subject == k and plan.action == "disappear" for plan in plans)
        ]
        if before or any(plan.target is not None for plan in plans):  # these start from where they were put
            targets = []
        last = subject not in subjects[i + 1 :]
        kind, doing = objects[subject].kind, previous.action if previous else ""
        actions = possible_actions(cur, kind, len(targets), not before, last, doing)
        if not actions:
            continue
        action = actions[weighted(rng, [WEIGHTS.get(a, 1.0) for a in actions])]
        direction, target, colour = "", None, ""
        if action in DIRECTED:
            direction = pick(rng, [d for d in DIRECTIONS if not previous or (action, d) != (doing, previous.direction)])
        elif action in ("circle", "push"):
            target = pick(rng, targets)
        elif action == "change colour":
            new = [c for c in cur.colours if c != colours[subject]]
            new = [c for c in new if split != "train" or not is_held_out(kind, c, ground)]
            if not new:
                continue
            colour = colours[subject] = pick(rng, new)
        plans.append(
            EventSpec(
                action=action, start=0.0, end=1.0, subject=subject, direction=direction, target=target, colour=colour
            )
        )
    spans = split_time(rng, cur.duration, [plan.action for plan in plans], cur.uneven)
    most = cur.amounts[1]  # there must be room for it: where a thing stands then does not tell how far it goes
    return [replace(plan, start=start, end=end, amount=most) for plan, (start, end) in zip(plans, spans, strict=True)]


def draw_amounts(rng: random.Random, cur: Curriculum, events: Sequence[EventSpec]) -> list[EventSpec]:
    """The events of a scene in which there is room for all of them at their most, each with an amount of its own."""
    if cur.amounts[0] == cur.amounts[1]:
        return list(events)
    return [replace(event, amount=round(rng.uniform(*cur.amounts), 3)) for event in events]


def split_time(
    rng: random.Random, duration: float, actions: Sequence[str], uneven: float = 1.0
) -> list[tuple[float, float]]:
    """Exact start and end of each event: shares of the clip with small random margins between them."""
    edges = share_time(rng, duration, len(actions), uneven)
    spans = []
    for i, action in enumerate(actions):
        share = edges[i + 1] - edges[i] if uneven > 1 else duration / len(actions)
        start = edges[i] + rng.uniform(0.0, 0.05) * share
        end = edges[i + 1] - rng.uniform(0.0, 0.05) * share
        natural = {"jump": JUMP_SECONDS, "fall": FALL_SECONDS}.get(action)
        if natural is not None:
            length = min(rng.uniform(*natural), end - start)
            room = end - start - length
            # A thing that falls hangs in the air until it starts, so it starts soon.
            start += room * rng.random() * (0.15 if action == "fall" else 1.0)
            end = start + length
        if i + 1 < len(actions) and actions[i + 1] == "stop":
            end = edges[i + 1]
        if action == "stop":
            start = edges[i]
        spans.append((round(start, 3), round(end, 3)))
    return spans


def share_time(rng: random.Random, duration: float, count: int, uneven: float = 1.0) -> list[float]:
    """Where the shares of `count` events begin, and the end; the longest has at most `uneven` times the shortest."""
    for _ in range(100 if uneven > 1 else 0):
        weights = [uneven ** rng.betavariate(0.5, 0.5) for _ in range(count)]  # short and long more than between
        edges = [0.0, *(duration * sum(weights[: i + 1]) / sum(weights) for i in range(count))]
        if min((b - a for a, b in pairwise(edges)), default=0.0) >= MIN_EVENT_SECONDS:
            return edges
    return [i * (duration / max(count, 1)) for i in range(count + 1)]


def fit_words(
    rng: random.Random, cur: Curriculum, objects: Sequence[ObjectSpec], events: Sequence[EventSpec]
) -> list[ObjectSpec]:
    """Objects with the size and pattern that make their events visible."""
    fitted = []
    for i, thing in enumerate(objects):
        actions = {e.action for e in events if e.subject == i}
        size, material = thing.size, thing.material
        if "grow" in actions and size == cur.sizes[-1] and len(cur.sizes) > 1:
            size = pick(rng, cur.sizes[:-1])
        if "shrink" in actions and "grow" not in actions and size == cur.sizes[0] and len(cur.sizes) > 1:
            size = pick(rng, cur.sizes[1:])
        if "spin" in actions and thing.kind in ROUND:
            material = pick(rng, [m for m in cur.materials if m in ("striped", "checked")])
        fitted.append(replace(thing, size=size, material=material))
    return fitted


def pick(rng: random.Random, items: Sequence[T]) -> T:
    return items[int(rng.random() * len(items))]


def weighted(rng: random.Random, weights: Sequence[float]) -> int:
    """An index with probability proportional to its weight."""
    mark = rng.random() * sum(weights)
    for i, weight in enumerate(weights):
        mark -= weight
        if mark < 0:
            return i
    return len(weights) - 1
