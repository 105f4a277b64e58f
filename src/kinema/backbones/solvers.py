"""Solvers by name: another scheduler of diffusers in the place of the one a model came with, and another shift.

What is chosen keeps everything the model was trained with (its kind of prediction, its levels of noise); only the way
from level to level changes. The result equals that of diffusers' pipeline with `Kind.from_config(scheduler.config)`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kinema.core.errors import KinemaError

if TYPE_CHECKING:
    from kinema.request import Request

# What a request calls a scheduler -> its class in diffusers, for models of velocities and for those of noise or v.
EULER_AND_UNIPC = {"euler": "FlowMatchEulerDiscreteScheduler", "unipc": "UniPCMultistepScheduler"}
FLOW = {**EULER_AND_UNIPC, "dpm++": "DPMSolverMultistepScheduler"}
COGVIDEOX = {"ddim": "CogVideoXDDIMScheduler", "dpm": "CogVideoXDPMScheduler"}
NOISE = {
    "ddim": "DDIMScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler a": "EulerAncestralDiscreteScheduler",
}


def chosen(
    own: Any, known: Mapping[str, str], requests: Sequence[Request], tokens: int, trained_tokens: int, model: str
) -> Any:
    """The scheduler of a batch: the model's `own`, or the one asked for, with the shift asked for.

    known: what this model can be solved with. tokens, trained_tokens: of the batch, and of the model's own size.
    flow_shift "auto" is the model's own shift times sqrt(tokens / trained_tokens), which leaves as much of a picture
    visible at a level as there was in training; Esser et al., 2024, arXiv:2403.03206, section 5.3.2, there for images.
    Raises: KinemaError for what this model has not, or where the requests differ.
    """
    asked = {(r.scheduler, r.flow_shift) for r in requests}
    if len(asked) != 1:
        raise KinemaError("the requests of a batch differ in scheduler or flow_shift; make them equal")
    name, shift = asked.pop()
    if name is not None and name not in known:
        which = f"it knows {', '.join(known)}" if known else "it has its own and no other"
        raise KinemaError(f"scheduler {name!r} does not solve model {model!r}; {which}")
    kind = type(own) if name is None else _class(known[name])
    if shift is None:
        return own if kind is type(own) else kind.from_config(own.config, **_flow(own, kind, _shift(own)))
    if _shift(own) is None or own.config.get("use_dynamic_shifting"):
        raise KinemaError(f"flow_shift is {shift!r}, and model {model!r} has no fixed shift to replace; leave it out")
    if shift == "auto":
        shift = _shift(own) * math.sqrt(tokens / trained_tokens)
    return kind.from_config(own.config, **_flow(own, kind, shift))


def _class(name: str) -> Any:
    import diffusers

    return getattr(diffusers, name)


def _shift(scheduler: Any) -> Any:
    """The fixed shift of a flow scheduler, None for one of noise levels."""
    config = scheduler.config
    if "shift" in config:
        return config["shift"]
    return config.get("flow_shift") if config.get("use_flow_sigmas") else None


def _flow(own: Any, kind: Any, shift: float | None) -> dict[str, Any]:
    """What a class must be told in other words than those of the model's own scheduler; nothing for noise levels."""
    if shift is None:
        return {}
    if "shift" in _parameters(kind):
        return {"shift": shift}
    return {"flow_shift": shift, "prediction_type": "flow_prediction", "use_flow_sigmas": True}


def _parameters(kind: Any) -> Any:
    import inspect

    return inspect.signature(kind.__init__).parameters
