"""The shots of a clip that is looked at."""

from __future__ import annotations

from kinema.layers.shots import shots as found
from kinema.metrics.viewing import Viewing


def shots(clip: Viewing) -> list[tuple[int, int]]:
    """First frame and the one after the last of each shot; see `kinema.layers.shots`."""
    return clip.once("shots", lambda: found(clip.frames, clip.fps))
