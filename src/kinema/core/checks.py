"""What is refused when a run opens: techniques that cannot work together, or on this model, or could not act at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kinema.core.attention import Taps
from kinema.core.errors import KinemaError
from kinema.core.technique import ALWAYS_DROPPABLE, HOOKS, OWNED, Step, Technique

if TYPE_CHECKING:
    from kinema.backbones.protocol import Backbone


def owner_of(techniques: Sequence[Technique]) -> Technique:
    """The technique that owns the guidance; without one, the conditional velocity is used as it is."""
    names = {t.name for t in techniques}
    for t in techniques:
        for other in t.conflicts:
            if other in names:
                raise KinemaError(f"{t.name} and {other} cannot run together; leave one of them out")
    for i, t in enumerate(techniques):
        twice = next((other for other in techniques[:i] if other.provides & t.provides), None)
        if twice is not None:
            what = ", ".join(sorted(twice.provides & t.provides))
            raise KinemaError(f"{twice.name} and {t.name} both bring the condition {what!r}; leave one of them out")
    for hook in OWNED:
        owners = [t for t in techniques if t.overrides(hook)]
        if len(owners) > 1:
            raise KinemaError(f"{owners[0].name} and {owners[1].name} both own {hook!r}; leave one of them out")
    windowed = [t for t in techniques if t.windowed]
    if len(windowed) > 1:
        raise KinemaError(
            f"{windowed[0].name} and {windowed[1].name} both show the model its clip in windows; leave one of them out"
        )
    return next((t for t in techniques if t.overrides("guide")), Technique())


def refuse_windows(techniques: Sequence[Technique]) -> None:
    """A window in which nothing can happen would leave a technique out without a word."""
    for t in techniques:
        first, last = t.noise_range
        if not 1 >= first >= last >= 0:
            raise KinemaError(f"noise_range of {t.name} is {t.noise_range}; use two levels from 1 down to 0")
        if t.block_range is not None and not 0 <= t.block_range[0] <= t.block_range[1]:
            raise KinemaError(f"block_range of {t.name} is {t.block_range}; use the first and the last block, from 0")
        if t.block_range is not None and not any(t.overrides(hook) for hook in Taps.HOOKS):
            raise KinemaError(f"block_range of {t.name} is {t.block_range}, and it looks at no attention; leave it out")


def refuse_blocks(backbone: Backbone, tapping: Sequence[Technique]) -> None:
    """A technique whose attention the model does not have would be left out without a word."""
    count = 1 + max((site.block for site in backbone.sites), default=-1)
    for t in tapping:
        first, last = t.block_range or (0, count - 1)
        if last >= count > 0:
            raise KinemaError(
                f"block_range of {t.name} is {t.block_range}, and model {backbone.name!r} has {count} blocks; "
                f"use blocks from 0 to {count - 1}"
            )
        if t.overrides("features") or t.overrides("reword"):
            continue
        wanted = [site for site in backbone.sites if t.overrides("context") or t.wants(site)]
        if not any(first <= site.block <= last for site in wanted):
            kinds = ", ".join(sorted({site.kind for site in backbone.sites})) or "none"
            where = "" if t.block_range is None else f" in blocks {first} to {last}"
            raise KinemaError(
                f"{t.name} looks at no attention that model {backbone.name!r} has{where}; its kinds are {kinds}"
            )


def refuse_idle(techniques: Sequence[Technique], schedule: Sequence[Step]) -> None:
    """So would one that acts step by step, in a window between two of them."""
    for t in techniques:
        by_step = any(t.overrides(hook) for hook in HOOKS if hook not in ("init_noise", "finish"))
        if by_step and not any(t.active(step) for step in schedule):
            middle = sum(t.noise_range) / 2
            near = min((step.t for step in schedule), key=lambda level: abs(level - middle))
            raise KinemaError(
                f"noise_range of {t.name} is {t.noise_range}, and none of the {len(schedule)} steps is in it; widen it "
                f"(the nearest is at noise level {near:.4f}), or use more steps"
            )


def refuse_unsupported(backbone: Backbone, techniques: Sequence[Technique]) -> None:
    droppable = backbone.droppable.union(ALWAYS_DROPPABLE, *(t.provides for t in techniques))
    for t in techniques:
        for hook in HOOKS:
            if t.overrides(hook) and hook not in backbone.hooks:
                where = " on several devices" if backbone.placement.context_parallel else ""
                raise KinemaError(
                    f"{t.name} needs the hook {hook!r}, which the {backbone.family} family does not have{where}"
                )
        for branch, left_out in t.dropped().items():
            for condition in sorted(left_out - droppable):
                known = ", ".join(sorted(droppable)) or "nothing"
                raise KinemaError(
                    f"{t.name} leaves out {condition!r} in its branch {branch!r}, which the {backbone.family} family "
                    f"cannot do, and no technique here brings it; it can leave out {known}"
                )
