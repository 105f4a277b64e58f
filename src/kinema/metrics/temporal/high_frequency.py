"""High-frequency energy in space and in time: what fades and what rises when a model makes longer clips than it can."""

from __future__ import annotations

import numpy as np

from kinema.metrics.metric import metric
from kinema.metrics.viewing import Viewing

CUT = 0.25  # of the highest frequency there is, half a cycle a pixel or a frame: FreeLong's border of its two bands
LEAST = 8  # frames, for a spectrum in time
BLOCK = 2**22  # pixels of all frames together that are transformed at once
GREY = np.array([0.299, 0.587, 0.114], np.float32)


def spatial_share(grey: np.ndarray) -> float | None:
    """Share of the energy of pictures (N, H, W) above the cut, the mean over them; None when all are flat.

    A picture less its mean, through a Hann window, has the energy |FFT|^2; its frequency is sqrt(fy^2 + fx^2), so the
    corners of the spectrum are above the highest one of either axis.
    """
    height, width = grey.shape[1:]
    window = np.outer(_hann(height), _hann(width))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)) / 0.5
    twice = np.where((np.arange(width // 2 + 1) == 0) | (2 * np.arange(width // 2 + 1) == width), 1, 2)
    found = []
    for picture in grey:
        centred = picture - (picture * window).sum() / window.sum()
        energy = np.square(np.abs(np.fft.rfft2(centred * window))) * twice
        if (total := energy.sum()) > _nothing(energy.size):
            found.append(energy[frequency > CUT].sum() / total)
    return float(np.mean(found)) if found else None


def temporal_energy(grey: np.ndarray) -> tuple[float, float]:
    """Energy above the cut and all energy of pixels (T, P) over time, each less its mean and through a Hann window."""
    window = _hann(len(grey))[:, None]
    centred = grey - (grey * window).sum(0) / window.sum()
    energy = np.square(np.abs(np.fft.rfft(centred * window, axis=0))).sum(1)
    energy[1 : (len(grey) + 1) // 2] *= 2  # what a real signal has at the negative frequencies
    high = np.fft.rfftfreq(len(grey)) / 0.5 > CUT
    return float(energy[high].sum()), float(energy.sum())


def _hann(length: int) -> np.ndarray:
    """A window (length,) that rises from just above 0 to 1 and falls again."""
    return np.square(np.sin(np.pi * (np.arange(length) + 0.5) / length))


def _nothing(count: int) -> float:
    """Energy that rounding alone can make in that many numbers."""
    return 1e-6 * count


@metric(
    "spatial_high_frequency",
    unit="share of energy",
    low=0,
    high=1,
    better=None,
    source='diagnosis of "FreeLong", 2024, arXiv:2407.19918, on grey frames instead of latents',
    sees="soften",
    ignores="darker",
)
def spatial_high_frequency(clip: Viewing) -> float | None:
    """Share of each frame's energy above a quarter of the highest spatial frequency; it fades as a clip blurs.

    Of grey frames less their mean, in the mean over frames. None when all frames are flat.
    """
    shares = [share for frame in clip.frames if (share := spatial_share((frame @ GREY)[None])) is not None]
    return float(np.mean(shares)) if shares else None


@metric(
    "temporal_high_frequency",
    unit="share of energy",
    low=0,
    high=1,
    better=None,
    source='diagnosis of "FreeLong", 2024, arXiv:2407.19918, on grey frames instead of latents',
    sees="flicker",
    ignores="darker",
)
def temporal_high_frequency(clip: Viewing) -> float | None:
    """Share of the energy of changes over time above a quarter of the highest frequency; it rises as a clip flickers.

    Of all grey pixels, each less its mean over time. None when nothing changes, or with fewer than 8 frames.
    """
    if len(clip) < LEAST:
        return None
    pixels = clip.frames.reshape(len(clip), -1, 3)
    step = max(1, BLOCK // len(clip))
    parts = [temporal_energy(pixels[:, i : i + step] @ GREY) for i in range(0, pixels.shape[1], step)]
    high, total = np.sum(parts, axis=0)
    return float(high / total) if total > _nothing(pixels[..., 0].size) else None
