"""Libraries that only some parts need: `pip install 'kinema[eval]'`."""

from __future__ import annotations

import importlib
from typing import Any

from kinema.core.errors import KinemaError


def library(name: str, extra: str = "eval") -> Any:
    """The module `name`. Raises: KinemaError, when it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise KinemaError(
            f"this needs {package}, which is not installed; run: pip install 'kinema[{extra}]'"
        ) from error


def opencv() -> Any:
    """cv2, on one thread: clips are scored side by side, and the same clip always gives the same number."""
    cv2 = library("cv2")
    cv2.setNumThreads(1)
    return cv2
