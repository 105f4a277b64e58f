"""When something starts to sound: onsets by spectral flux on a mel scale, with the usual settings of librosa.

Bello et al., "A tutorial on onset detection in music signals", 2005, for the flux; the mel scale, the step in decibels
and how peaks are picked follow librosa's documentation (`librosa.onset`), so that AV-Align finds the onsets that its
authors' code does.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from kinema.core.errors import KinemaError
from kinema.core.optional import library
from kinema.metrics.viewing import Viewing

RATE = 22050  # samples per second at which it listens
WINDOW, HOP = 2048, 512  # samples
BANDS = 128  # of the mel scale, from 0 to half the rate
FLOOR = 1e-10  # power that counts as silence
DEPTH = 80.0  # dB below the loudest that counts as silence
RISE = 0.07  # least height of a peak above its surroundings, as a share of the highest


def onsets(clip: Viewing) -> np.ndarray:
    """Seconds of the onsets in a clip's sound, in order. Raises: KinemaError when the sound has a wrong shape."""
    assert clip.sound is not None  # a metric that needs one is never asked without
    sound, rate = clip.sound, clip.sample_rate
    return clip.once("onsets", lambda: onset_times(mono(sound), rate))


def mono(sound: np.ndarray) -> np.ndarray:
    """(S,) or (S, channels) -> (S,) float64. Raises: KinemaError for another shape, or where a sample is no number."""
    wave = np.asarray(sound, np.float64)
    if wave.ndim not in (1, 2) or not np.isfinite(wave).all():
        raise KinemaError(f"sound has shape {wave.shape}; give (S,) or (S, channels) of finite numbers")
    return wave if wave.ndim == 1 else wave.mean(1)


def onset_times(wave: np.ndarray, rate: int) -> np.ndarray:
    """(S,) samples -> seconds of its onsets: peaks of how much louder the bands get from one window to the next."""
    rise = strength(resampled(wave, rate))
    return peaks(rise) * HOP / RATE


def resampled(wave: np.ndarray, rate: int) -> np.ndarray:
    """At 22050 samples per second."""
    if not 1000 <= rate <= 400000:
        raise KinemaError(f"sample_rate is {rate}; use 1000 to 400000")
    if rate == RATE or not len(wave):
        return wave
    ratio = Fraction(RATE, int(rate))
    found: np.ndarray = library("scipy.signal").resample_poly(wave, ratio.numerator, ratio.denominator)
    return found


def strength(wave: np.ndarray) -> np.ndarray:
    """(S,) at 22050 per second -> (N,): mean over the mel bands of how many dB each rises from window to window."""
    if not len(wave):
        return np.zeros(0)
    padded = np.pad(wave, WINDOW // 2)
    rows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    power = np.abs(np.fft.rfft(rows * hann, axis=1)) ** 2
    level = 10 * np.log10(np.maximum(power @ mel_bands().T, FLOOR))
    level = np.maximum(level, level.max() - DEPTH)
    rise = np.maximum(0, np.diff(level, axis=0)).mean(1)
    shift = WINDOW // (2 * HOP)  # a window hears what is still ahead of its middle
    return np.pad(rise, (1 + shift, 0))[: len(rows)]


def mel_bands() -> np.ndarray:
    """(128, 1025) triangles of equal area over frequency; linear up to 1000 Hz and logarithmic above (Slaney, 1998)."""
    top = _to_mel(np.array(RATE / 2))
    edges = _to_hertz(np.linspace(0, top, BANDS + 2))
    bins = np.linspace(0, RATE / 2, WINDOW // 2 + 1)
    up = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    down = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    area: np.ndarray = np.maximum(0, np.minimum(up, down)) * (2 / (edges[2:] - edges[:-2]))[:, None]
    return area


def _to_mel(hertz: np.ndarray) -> np.ndarray:
    """15 mels are 1000 Hz; above that 27 more are a factor of 6.4."""
    found: np.ndarray = np.where(
        hertz < 1000, hertz * 3 / 200, 15 + 27 * np.log(np.maximum(hertz, 1000) / 1000) / np.log(6.4)
    )
    return found


def _to_hertz(mel: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))
    return found


def peaks(rise: np.ndarray) -> np.ndarray:
    """Numbers of the windows that are onsets, of (N,) strengths.

    A peak is the highest of 30 ms before it, at least 7% of the highest of all above the mean of 100 ms before and
    after, and at least 30 ms behind the last.
    """
    span = rise.max(initial=0) - rise.min(initial=np.inf) if len(rise) else 0
    if span <= 0:
        return np.zeros(0, int)
    height = (rise - rise.min()) / span
    second = RATE / HOP
    back, ahead, around = int(0.03 * second), int(0.0 * second) + 1, int(0.1 * second)
    found: list[int] = []
    for i, value in enumerate(height):
        near = height[max(0, i - back) : i + ahead]
        wide = height[max(0, i - around) : i + around + 1]
        if value >= near.max() and value >= wide.mean() + RISE and (not found or i - found[-1] > back):
            found.append(i)
    return np.array(found, int)
