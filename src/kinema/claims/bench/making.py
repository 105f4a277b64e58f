"""One clip of one arm, with what it cost."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from kinema.claims.bench.claim import Arm, Case, Claim, Numbers
from kinema.metrics.metric import Metric, metrics
from kinema.metrics.viewing import Viewing
from kinema.pipeline import run_request
from kinema.request import Part, Request

if TYPE_CHECKING:
    from kinema.backbones.protocol import Backbone

RESET_PEAK = "/proc/self/clear_refs"  # of Linux; writing 5 there sets the peak of this process back


def make(
    backbone: Backbone, claim: Claim, arm: Arm, case: Case, seed: int, steps: int | None
) -> tuple[Viewing | None, Numbers]:
    """The clip of an arm, None where the arm makes none, and what was measured while it was made."""
    clock, memory = Clock(), peak_memory(backbone.device)
    if arm.own is not None:
        clock("load", 1, 1)
        numbers = arm.own(backbone, case, seed, steps)
        clock("sample", 1, 1)
        return None, {**clock.costs, "memory": memory(), **numbers}
    request = Request(
        **{
            **dict(prompt=case.texts.get(arm.name, case.text), seed=seed),
            **dict(num_inference_steps=steps, model=backbone.name),
            **claim.request,
            **case.request,
            **arm.request,
            "techniques": tuple(_part(text, case) for text in arm.techniques),
        }
    )
    video = run_request(request, clock, backbone)
    clip = Viewing(video.frames, video.fps, video.sound, video.sample_rate, prompt=case.text)
    return clip, {**clock.costs, "memory": memory()}


def _part(text: str, case: Case) -> Part:
    """A technique of an arm, with what it needs to know of the case."""
    part = Part.parse(text)
    return Part(name=part.name, options={**case.options.get(part.name, {}), **part.options})


class Clock:
    """Time from when the model is ready until its last step is done; decoding is left out."""

    def __init__(self) -> None:
        self.costs: Numbers = {}
        self._began = (0.0, 0.0)

    def __call__(self, phase: str, done: int, count: int) -> None:
        now = (time.perf_counter(), time.process_time())
        if phase == "load":
            self._began = now
        elif phase == "sample":
            self.costs = {"seconds": now[0] - self._began[0], "cpu_seconds": now[1] - self._began[1]}


def peak_memory(device: torch.device) -> Callable[[], float | None]:
    """Begins to watch; what it returns gives the peak since then in MB, None where the system does not tell.

    On a GPU it is what tensors hold there, otherwise what this process holds in memory, its libraries and weights too.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return lambda: torch.cuda.max_memory_allocated(device) / 1e6
    try:
        with open(RESET_PEAK, "w") as file:
            file.write("5")
    except OSError:
        return lambda: None

    def peak() -> float | None:
        with open("/proc/self/status") as file:
            found = next((line.split()[1] for line in file if line.startswith("VmHWM:")), None)
        return None if found is None else int(found) * 1024 / 1e6

    return peak


def measured(claim: Claim, case: Case, clips: dict[str, Viewing]) -> dict[str, Numbers]:
    """The values of all measures of the claim, arm by arm."""
    found: dict[str, Numbers] = {name: {} for name in clips}
    for comparison in claim.comparisons:
        metric = metrics().get(comparison.measure)
        for name, clip in clips.items():
            if comparison.measure in claim.measures:
                found[name][comparison.label] = claim.measures[comparison.measure](clip, case)
            elif isinstance(metric, Metric) and name != comparison.to:
                clip.reference = clips[comparison.to] if comparison.to else _given(case, clip)
                found[name][comparison.label] = metric(clip)
    return found


def _given(case: Case, clip: Viewing) -> Viewing | None:
    return None if case.reference is None else Viewing(case.reference, clip.fps)


def steps_for_equal_time(claim: Claim, steps: int, seconds: dict[str, float], arm: Arm) -> int:
    """How many steps need the time of the arm that `arm` is to be as fast as: in proportion, 1 at least."""
    assert arm.as_fast_as is not None
    return max(1, round(steps * seconds[arm.as_fast_as] / seconds[claim.baseline]))


def in_turn(arms: Sequence[Arm], number: int) -> list[Arm]:
    """The arms beginning with another one for each case, so that none is always the first."""
    first = number % len(arms)
    return [*arms[first:], *arms[:first]]
