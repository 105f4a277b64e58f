"""Where a model's weights lie, and in which types, so that it runs on the machine at hand."""

from __future__ import annotations

from typing import Any

from kinema.core.errors import KinemaError
from kinema.request import Placement


def place(backbone: Any, placement: Placement) -> None:
    """Puts a loaded model where `placement` says, and notes it in `backbone.placement`.

    Raises: KinemaError for what this model or this machine cannot do.
    """
    for name, value in placement.switches().items():
        if value:
            raise KinemaError(f"{name} is not in this version; leave it out")
    backbone.placement = placement
