"""The sound of a clip: every contact is an impact of decaying modes, rolling and sliding things rustle.

An impact is modal synthesis (van den Doel and Pai, "The sounds of physical shapes", 1998): a sum of
a_k exp(-d_k t) cos(2 pi f_k t). The material gives the ratios of the modes and how long they ring, the size the pitch
(twice as large sounds an octave lower), the ground takes away brightness, and the closing speed is the loudness.
Mono, float32 in -1..1, 16 kHz.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kinema.world.motion import Contact
from kinema.world.spec import SceneSpec

Wave = NDArray[np.float32]
SAMPLE_RATE = 16000  # samples per second
LOUDNESS = 0.09  # amplitude of an impact at 1 m/s
ROLL_LOUDNESS = 0.012  # amplitude of the rustle at 1 m/s
RING_DECAYS = 7.0  # an impact is cut off after as many time constants of its lowest mode


@dataclass(frozen=True, kw_only=True)
class Timbre:
    """How a material sounds when a thing of medium size (half extent 0.5 m) is struck."""

    pitch: float  # hertz, lowest mode
    ratios: tuple[float, ...]  # of the modes over the lowest
    decay: float  # seconds, time constant of the lowest mode


TIMBRES = {
    "matte": Timbre(pitch=170.0, ratios=(1.0, 1.59, 2.14, 2.65), decay=0.045),  # rubber: a drum's membrane
    "shiny": Timbre(pitch=620.0, ratios=(1.0, 2.76, 5.40, 8.93), decay=0.22),  # metal: a free bar
    "striped": Timbre(pitch=330.0, ratios=(1.0, 2.57, 4.68, 7.30), decay=0.07),  # wood
    "checked": Timbre(pitch=470.0, ratios=(1.0, 1.73, 2.81, 4.10), decay=0.11),  # stoneware
}
# How much of each higher mode is left, for grounds: soft ones damp.
BRIGHTNESS = {"grass": 0.35, "sand": 0.25, "snow": 0.15, "stone": 0.9, "wood": 0.7, "water": 0.45}


def impact(contact: Contact, sample_rate: int = SAMPLE_RATE) -> Wave:
    """One contact from its first sample on, (S,) float32."""
    timbre = TIMBRES[contact.materials[0]]
    bright = BRIGHTNESS.get(contact.materials[1], 0.8)
    pitch = timbre.pitch * 0.5 / contact.size
    decay = timbre.decay * (0.5 + bright)
    t = np.arange(max(1, math.ceil(RING_DECAYS * decay * sample_rate))) / sample_rate
    wave = np.zeros_like(t)
    for k, ratio in enumerate(timbre.ratios):
        if pitch * ratio < sample_rate / 2:
            wave += bright**k * np.exp(-t * ratio**0.7 / decay) * np.cos(2 * np.pi * pitch * ratio * t)
    wave *= LOUDNESS * contact.speed / sum(bright**k for k in range(len(timbre.ratios)))
    return wave.astype(np.float32)


def impacts(contacts: Sequence[Contact], samples: int, sample_rate: int = SAMPLE_RATE) -> Wave:
    """All contacts of a clip, (samples,) float32; a contact at time t starts in sample round(t * sample_rate)."""
    track = np.zeros(samples, dtype=np.float32)
    for contact in contacts:
        first = round(contact.time * sample_rate)
        wave = impact(contact, sample_rate)[: max(0, samples - first)]
        track[first : first + len(wave)] += wave
    return track


def rustle(spec: SceneSpec, centre: Wave, samples: int, sample_rate: int = SAMPLE_RATE) -> Wave:
    """Noise of what moves along the ground, as loud as it is fast; `centre` is (T, N, 3) metres."""
    track = np.zeros(samples, dtype=np.float32)
    if len(centre) < 2:
        return track
    rng = np.random.default_rng(spec.seed & 0x7FFFFFFFFFFFFFFF)
    step = np.diff(centre.astype(np.float64), axis=0) * spec.fps
    at = (np.arange(len(step)) + 0.5) / spec.fps
    time = np.arange(samples) / sample_rate
    softness = max(1, round(10 * (1 - BRIGHTNESS[spec.ground])))
    for n in range(centre.shape[1]):
        speed = np.hypot(step[:, n, 0], step[:, n, 1])
        if speed.max() < 1e-3:
            continue
        noise = np.convolve(rng.standard_normal(samples), np.ones(softness) / softness**0.5, mode="same")
        track += (ROLL_LOUDNESS * np.interp(time, at, speed) * noise).astype(np.float32)
    return track


def sound_track(spec: SceneSpec, contacts: Sequence[Contact], centre: Wave, sample_rate: int = SAMPLE_RATE) -> Wave:
    """The whole sound of a clip: (S,) float32 in -1..1, S = round(num_frames / fps * sample_rate)."""
    samples = round(spec.num_frames / spec.fps * sample_rate)
    track = impacts(contacts, samples, sample_rate) + rustle(spec, centre, samples, sample_rate)
    squeezed: Wave = np.tanh(track).astype(np.float32)
    return squeezed
