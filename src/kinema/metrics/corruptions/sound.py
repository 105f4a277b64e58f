"""Faults of the sound: too late, too soft, or going on where nothing is to be seen."""

from __future__ import annotations

import numpy as np

from kinema.metrics.corruptions.corruption import corruption
from kinema.metrics.viewing import Viewing

LATE = 0.2  # seconds; later ones fall together with what comes next


@corruption("late_sound")
def late_sound(clip: Viewing, grade: float) -> Viewing:
    """The sound comes later, at grade 1 by a fifth of a second; before it there is silence, and its end is cut."""
    if clip.sound is None:
        return clip
    late = min(round(LATE * grade * clip.sample_rate), len(clip.sound))
    return clip.but(sound=np.concatenate([np.zeros_like(clip.sound[:late]), clip.sound[: len(clip.sound) - late]]))


@corruption("unseen_sound")
def unseen_sound(clip: Viewing, grade: float) -> Viewing:
    """After the last frame the sound begins again, and goes on for that share of its length."""
    if clip.sound is None:
        return clip
    whole = np.zeros((round(clip.seconds * clip.sample_rate), *clip.sound.shape[1:]), clip.sound.dtype)
    whole[: len(clip.sound)] = clip.sound[: len(whole)]
    return clip.but(sound=np.concatenate([whole, whole[: round(grade * len(whole))]]))


@corruption("quieter")
def quieter(clip: Viewing, grade: float) -> Viewing:
    """The sound is quieter, at grade 1 half as loud."""
    return clip if clip.sound is None else clip.but(sound=clip.sound * np.float32(1 - 0.5 * grade))
