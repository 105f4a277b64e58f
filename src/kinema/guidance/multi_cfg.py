"""Guidance over several conditions: a list of weighted differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from kinema.core.errors import KinemaError
from kinema.core.registry import technique
from kinema.core.technique import Step, Technique
from kinema.guidance.cfg import CFG

if TYPE_CHECKING:
    from kinema.core.run import Run

TIME = "time"  # the one condition whose difference is taken without the text, as in Gen-1


@technique("multi_cfg", paper="arXiv:2211.09800", base="InstructPix2Pix", neutral=dict(scale=1.0))
@dataclass(frozen=True, kw_only=True)
class MultiCFG(CFG):
    """v = u + scale (c - u) + sum of (w - 1) (c - c without it) + (w_time - 1) (1 - t) (u - u without time).

    c under everything, u under the negative prompt; each of `weights` names a condition that is left out: "camera:1.5"
    for an adapter's, "time:1.2" for how frames hang together. 1 is none, and asks for no call of the model. What is
    `joint` is left out of u as well, and its weight is of c - u: both are then guided against neither, by one call,
    v = u + s (c - u) with s = scale + w - 1. Where the text says once more what the condition does, and less exactly,
    its own part may weigh less, as at "events:0.25": v = c + (s - 1) ((e - u) + share (c - e)), where e leaves out the
    text alone, and reads no negative prompt. Of several such shares the least of those that act counts.
    Paper: two weights are those of "InstructPix2Pix", 2022, arXiv:2211.09800. With "camera" this is AC3D's
    (1 + w_y + w_c) v(y, c) - w_y v(0, c) - w_c v(y, 0), 2024, arXiv:2411.18673, at scale = 1 + w_y and
    camera:(1 + w_c); with "time" it is Gen-1's, 2023, arXiv:2302.03011, where v without time is what the model says
    of each latent frame alone. Departures: InstructPix2Pix nests its differences, picture before text; here each is
    taken from everything, so that their order does not matter. Gen-1's term is (1 - t) of
    its own: in much noise it is decided how things move, and there weights above 1 made `mini` flicker no less.
    Shapes: all branches and the result are (B, C, T, H, W), in latent units per unit of t.
    Raises: KinemaError at start, for numbers out of range, weights that cannot be read, conditions that nothing in the
    run has, and for "text", "time" or a condition twice in `joint`.
    """

    weights: tuple[str, ...] = ()  # "condition:weight", each once
    joint: tuple[str, ...] = ()  # conditions left out with the text, or "condition:share", the text's, 0 or more

    def start(self, run: Run) -> None:
        super().start(run)
        if any(not math.isfinite(weight) for weight in self.weighed.values()):
            raise KinemaError(f"weights of {self.name} are {', '.join(self.weights)}; use finite numbers")
        if "no_text" in self.dropped() and any(request.negative_prompt for request in run.requests):
            run.read_instead("no_text", "")  # so that e - u leads away from the negative prompt, too

    @property
    def weighed(self) -> Mapping[str, float]:
        """Condition -> weight."""
        found: dict[str, float] = {}
        for text in self.weights:
            condition, value = _numbered(text)
            if value is None or not condition or condition in (*found, "text"):
                raise KinemaError(
                    f"{text!r} in weights of {self.name} is no condition:weight; name each condition once, as in "
                    "camera:1.5, and the text's weight as scale"
                )
            found[condition] = value
        return found

    @property
    def shares(self) -> Mapping[str, float]:
        """Joint condition -> how much the text's own part weighs beside it."""
        found: dict[str, float] = {}
        for text in self.joint:
            condition, value = _numbered(text if ":" in text else f"{text}:1")
            if not condition or condition in (*found, "text", TIME) or value is None or not 0 <= value < math.inf:
                raise KinemaError(
                    f"{text!r} in joint of {self.name} is no condition; name those of adapters, each once, as camera, "
                    "or as events:0.25 with a share of the text, 0 or more"
                )
            found[condition] = value
        return found

    def dropped(self) -> Mapping[str, frozenset[str]]:
        negative = frozenset({"text", *self.shares})
        found = {"cond": frozenset[str](), "uncond": negative} if self._has_negative else {"cond": frozenset[str]()}
        found |= {"no_text": frozenset({"text"})} if self._has_negative and set(self.shares.values()) - {1.0} else {}
        return found | {f"no_{n}": negative | {n} if n == TIME else frozenset({n}) for n in self._apart}

    def needs(self, step: Step) -> Sequence[str]:
        asked = [f"no_{name}" for name in self._apart if self._excess(name, step)]
        negative = self.at(step) != 1 or f"no_{TIME}" in asked or any(self._excess(name, step) for name in self.shares)
        beside = negative and self._share(step) != 1 and self._scale(step) != 1
        return ["cond", *(["uncond"] if negative else []), *(["no_text"] if beside else []), *asked]

    def guide(self, step: Step, cond: Tensor, **branches: Tensor) -> Tensor:  # type: ignore[override]
        uncond, scale = branches.get("uncond", cond), self._scale(step)
        v = cond if scale == 1 else uncond + scale * (cond - uncond)
        if "no_text" in branches:
            v = v - (scale - 1) * (1 - self._share(step)) * (cond - branches["no_text"])
        for name in self._apart:
            if f"no_{name}" in branches:
                v = v + self._excess(name, step) * ((uncond if name == TIME else cond) - branches[f"no_{name}"])
        return v

    @property
    def _apart(self) -> list[str]:
        return [name for name in self.weighed if name not in self.shares]

    @property
    def _has_negative(self) -> bool:
        """Whether any step asks for the negative branch; where none does, a negative prompt is not read."""
        weighs = any(self.weighed.get(name, 1.0) != 1 for name in (TIME, *self.shares))
        return weighs or self.scale != 1 or self.low_noise_scale not in (None, 1)

    def _scale(self, step: Step) -> float:
        """s: the weight of c - u."""
        return self.at(step) + sum(self._excess(name, step) for name in self.shares)

    def _share(self, step: Step) -> float:
        """Of the text's own part: 1 where nothing that is joint acts, and for sound, on which no condition acts."""
        acting = [share for name, share in self.shares.items() if self._acts(name, step)]
        return min(acting, default=1.0) if step.of == "video" else 1.0

    def _excess(self, name: str, step: Step) -> float:
        """w - 1; 0 where nobody who brings the condition acts, as its difference is nothing then."""
        excess = self.weighed.get(name, 1.0) - 1 if self._acts(name, step) else 0.0
        return excess * (1 - step.t) if name == TIME else excess

    def _acts(self, name: str, step: Step) -> bool:
        bring = () if step.run is None else tuple(t for t in step.run.techniques if name in t.provides)
        return not bring or any(t.active(step) and getattr(t, "weight", 1.0) for t in bring)


def _numbered(text: str) -> tuple[str, float | None]:
    """Of "condition:number" both; None for what is no number."""
    condition, _, number = text.partition(":")
    try:
        return condition, float(number)
    except ValueError:
        return condition, None


def joined(plain: Sequence[Technique], weights: Mapping[str, float], joint: Sequence[str] = ()) -> list[Technique]:
    """The guidance of a model (see `plain_guidance`) with weights for more conditions, some joint with the text.

    Where the text's guidance is none, or of another kind than CFG, nothing is joint with it.
    Raises: KinemaError for weights in a model whose guidance is of another kind.
    """
    told = tuple(f"{name}:{weight!r}" for name, weight in weights.items())
    text = plain[0] if plain else None
    if type(text) is CFG and (weights or joint):
        return [MultiCFG(scale=text.scale, low_noise_scale=text.low_noise_scale, weights=told, joint=tuple(joint))]
    if text is None and weights:
        return [MultiCFG(scale=1.0, weights=told)]
    if weights:
        raise KinemaError(
            f"the guidance of this model is {plain[0].name}, which takes no weight of {', '.join(weights)}; set "
            "guidance=1 of what brings it"
        )
    return list(plain)
