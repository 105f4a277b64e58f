"""Leave the blocks out as long as the size of what they add is known to change little from step to step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kinema.core.errors import KinemaError
from kinema.core.registry import technique
from kinema.core.technique import Technique

if TYPE_CHECKING:
    from kinema.core.run import Run
    from kinema.core.technique import Call

CARD = "magcache_ratios"  # where a model's card.json keeps its ratios
ENDLESS = 2**31  # steps after which diffusers forgets what it measured


@technique(
    "magcache",
    paper="arXiv:2506.09045",
    base="Wan 2.1, HunyuanVideo, FLUX.1, Open-Sora",
    neutral=dict(most_in_a_row=0, ratios=(1.0,)),
)
@dataclass(frozen=True, kw_only=True)
class MagCache(Technique):
    """out = in + r, with r of the last computed step, while sum |1 - product of ratios| <= threshold.

    A ratio is |r| of a step over |r| of the one before, which hardly depends on the prompt: it is measured once for a
    model, by `python -m kinema.claims.magcache`, and read from its card.json.
    Paper: "MagCache: Fast Video Generation with Magnitude-Aware Cache", 2025, arXiv:2506.09045; the defaults are its
    authors' for Wan 2.1 1.3B. Departures: of diffusers' hooks, which do the work: one list of ratios for all branches.
    Shapes: the hidden states of the network, which keep theirs.
    Raises: KinemaError at start, for values out of range, for models without ratios or with two experts, and before the
    first step for networks without such blocks.
    """

    conflicts = ("cfg_cache",)  # a call it left out, less one that was computed, is no difference to keep

    threshold: float = 0.12  # sum of errors that is let pass, no unit
    most_in_a_row: int = 4  # steps that are left out one after the other; 0 computes all
    retention: float = 0.2  # share of the steps at the start that are computed, 0..1
    ratios: tuple[float, ...] = ()  # a ratio a step, of any number of steps; none takes the model's own
    calibrate: bool = False  # measures the ratios instead: computes every step

    def start(self, run: Run) -> None:
        if not self.threshold >= 0 or self.most_in_a_row < 0 or not 0 <= self.retention <= 1:
            raise KinemaError(
                f"threshold {self.threshold} and most_in_a_row {self.most_in_a_row} of magcache must be 0 or more, "
                f"retention {self.retention} 0 to 1"
            )
        if run.backbone.expert_boundary is not None:
            raise KinemaError("magcache counts the steps of one network; a model of two experts has two")
        if not self.calibrate:
            self.known_ratios(run)
        run.state[self] = []

    def known_ratios(self, run: Run) -> list[float]:
        """The ratios given, or the model's own. Raises: KinemaError."""
        found = self.ratios or run.backbone.folder.card.get(CARD)
        if not found:
            raise KinemaError(
                f"magcache has no ratios for model {run.backbone.name!r}; give ratios, or measure them with "
                "python -m kinema.claims.magcache"
            )
        if not isinstance(found, list | tuple) or not all(isinstance(r, int | float) and r > 0 for r in found):
            raise KinemaError(f"ratios of magcache are {found!r}; use numbers above 0, one a step")
        return [float(r) for r in found]

    def cache(self, run: Run, call: Call) -> Any:
        from diffusers import MagCacheConfig

        run.state[self].append(call)
        if self.calibrate:
            return MagCacheConfig(num_inference_steps=ENDLESS, calibrate=True)  # type: ignore[no-untyped-call]
        before = call.step.index  # steps before this series of calls
        kept = max(round(self.retention * run.steps) - before, 0)
        return MagCacheConfig(  # type: ignore[no-untyped-call]
            threshold=self.threshold,
            max_skip_steps=self.most_in_a_row,
            retention_ratio=kept / (run.steps - before),
            num_inference_steps=run.steps - before,
            mag_ratios=nearest(self.known_ratios(run), run.steps)[before:],
        )


def nearest(ratios: Sequence[float], steps: int) -> list[float]:
    """Ratios for another number of steps: those of the nearest places."""
    last = len(ratios) - 1
    return [ratios[round(i * last / (steps - 1))] if steps > 1 else ratios[last] for i in range(steps)]


def measured_ratios(calls: Sequence[Call]) -> list[float]:
    """What the calls of a run with `calibrate` have measured, the mean of its series, a ratio a step."""
    states = [_state(network) for call in calls if call.count for network in call.networks]
    lists = [state.calibration_ratios for state in states]
    return [sum(ratios) / len(ratios) for ratios in zip(*lists, strict=True)]


def _state(network: Any) -> Any:
    """What diffusers' hook keeps of a network's one series."""
    registries: list[Any] = [getattr(module, "_diffusers_hook", None) for module in network.modules()]
    hooks = [hook for registry in registries if registry is not None for hook in registry.hooks.values()]
    (state,) = {id(s): s for hook in hooks for s in hook.state_manager._state_cache.values()}.values()
    return state
