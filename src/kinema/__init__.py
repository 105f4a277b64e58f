"""kinema: make and edit video with any video diffusion model.

    import kinema
    kinema.generate("a red ball bounces on the grass, then rolls to the left", seed=7).save("out.mp4")

Names load when they are first used, so that `import kinema` is quick and does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Event": "kinema.timeline",
    "KinemaError": "kinema.core.errors",
    "Prompt": "kinema.timeline",
    "Request": "kinema.request",
    "Step": "kinema.core.technique",
    "Technique": "kinema.core.technique",
    "Timeline": "kinema.timeline",
    "Video": "kinema.video",
    "classify": "kinema.understanding.classify",
    "compare": "kinema.evaluation.compare",
    "contact_sheet": "kinema.video",
    "edit": "kinema.editing",
    "evaluate": "kinema.evaluation.evaluate",
    "generate": "kinema.pipeline",
    "load": "kinema.backbones.load",
    "replay": "kinema.pipeline",
    "run_request": "kinema.pipeline",
    "sample": "kinema.core.loop",
    "technique": "kinema.core.registry",
    "techniques": "kinema.core.registry",
}
__all__ = [*_HOMES, "__version__"]

if TYPE_CHECKING:
    from kinema.backbones.load import load as load
    from kinema.core.errors import KinemaError as KinemaError
    from kinema.core.loop import sample as sample
    from kinema.core.registry import technique as technique
    from kinema.core.registry import techniques as techniques
    from kinema.core.technique import Step as Step
    from kinema.core.technique import Technique as Technique
    from kinema.editing import edit as edit
    from kinema.evaluation.compare import compare as compare
    from kinema.evaluation.evaluate import evaluate as evaluate
    from kinema.pipeline import generate as generate
    from kinema.pipeline import replay as replay
    from kinema.pipeline import run_request as run_request
    from kinema.request import Request as Request
    from kinema.timeline import Event as Event
    from kinema.timeline import Prompt as Prompt
    from kinema.timeline import Timeline as Timeline
    from kinema.understanding.classify import classify as classify
    from kinema.video import Video as Video
    from kinema.video import contact_sheet as contact_sheet


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'kinema' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
