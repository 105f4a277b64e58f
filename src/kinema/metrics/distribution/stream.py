"""STREAM: how natural the motion of a set of clips is, apart from how good and how varied its pictures are.

Source: "STREAM: Spatio-TempoRal Evaluation and Analysis Metric for Video Generative Models", 2024, arXiv:2403.09669,
and its released code, which is followed where the two differ. Each feature of the frames of a clip is a signal in time.
Its mean tells what the clip looks like, how fast its spectrum falls tells how it moves.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kinema.core.errors import KinemaError
from kinema.metrics.distribution.manifolds import share_within
from kinema.metrics.metric import Features, set_metric
from kinema.metrics.rows import evenly

SOURCE = '"STREAM: Spatio-TempoRal Evaluation and Analysis Metric", 2024, arXiv:2403.09669'
DINO = "dino@facebook/dinov2-small"  # ViT-S/14; the paper takes it or the ResNet-50 of SwAV
K = 5  # neighbours
BINS = 50  # of a histogram
FEWEST = 4  # frames that a spectrum can be fitted to
TOLD: dict[str, Any] = dict(
    low=0,
    high=1,
    better="higher",
    source=SOURCE,
    extractor=DINO,
    offline="efficientnet",
    features="frames",
    least=K + 1,
    clips=32,
)


def amplitudes(signal: np.ndarray) -> np.ndarray:
    """Amplitudes 2 |X_x| / (F // 2 + 1) of signals (F, D) at the frequencies x = 0 .. F // 2; (F // 2 + 1, D)."""
    found: np.ndarray = 2 * np.abs(np.fft.rfft(signal, axis=0)) / (len(signal) // 2 + 1)
    return found


def slope(amplitude: np.ndarray) -> np.ndarray:
    """B of the power law A x^B closest to amplitudes (X, D) at x = 1 .. X, by least squares of logarithms; (D,)."""
    x = np.log(np.arange(1, len(amplitude) + 1))
    x -= x.mean()
    found: np.ndarray = x @ np.log(amplitude + 1e-6) / (x @ x)
    return found


def skewness(b: np.ndarray, count: int, power: float = 0.5) -> np.ndarray:
    """Skewness of the spectrum x^b, x = 1 .. count, about 0; b (D,), result (D,).

    sum(x^(b+3)) / (sqrt(c) (sum x^(b+2))^power), c = 1 / sum(x^b). The released code takes the power 1/2; the textbook
    skewness has 3/2. Either way it is a steady function of b alone.
    """
    x = np.arange(1.0, count + 1)[:, None]
    scale = 1 / (x**b).sum(0)
    found: np.ndarray = (x ** (b + 3)).sum(0) / (np.sqrt(scale) * (x ** (b + 2)).sum(0) ** power)
    return found


def histogram_agreement(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over features of the squared correlation of two histograms, of values a (M, D) and b (N, D); 0 to 1.

    50 bins from int(least) - 1 to int(most) + 1 of both, `int` rounding towards 0 as in the released code.
    """
    low = np.trunc(np.minimum(a.min(0), b.min(0))) - 1
    high = np.trunc(np.maximum(a.max(0), b.max(0))) + 1
    centred = []
    for values in (a, b):
        bins = np.minimum((values - low) / (high - low) * BINS, BINS - 1).astype(int)
        flat = bins + BINS * np.arange(values.shape[1])
        counts = np.bincount(flat.ravel(), minlength=BINS * values.shape[1]).reshape(-1, BINS) / len(values)
        centred.append(counts - counts.mean(1, keepdims=True))
    one, other = centred
    spread = np.sqrt(np.square(one).sum(1) * np.square(other).sum(1))
    correlation = np.divide((one * other).sum(1), spread, out=np.zeros(len(spread)), where=spread > 0)  # 0 where flat
    return float(np.square(correlation).mean())


def spectra(clips: Features, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Of features (T, D) of N clips, over the first `frames`: skewness of the spectra and mean signals, (N, D) each."""
    found = [amplitudes(np.asarray(clip[:frames], np.float64)) for clip in clips]
    return np.stack([skewness(slope(each[1:]), frames // 2) for each in found]), np.stack([each[0] for each in found])


def _both(made: Features, reference: Features) -> list[tuple[np.ndarray, np.ndarray]]:
    """`spectra` of both sets, over the first frames that all clips have, of at most 10,000 clips a set.

    Raises: KinemaError when there is one feature for a whole clip, a clip is too short or the features do not fit.
    """
    sets = [[clips[i] for i in evenly(len(clips))] for clips in (made, reference)]
    shapes = [np.shape(clip) for clips in sets for clip in clips]
    if any(len(shape) != 2 for shape in shapes):
        raise KinemaError("STREAM needs features of every frame; use an extractor that gives them, for example dino")
    frames = min(shape[0] for shape in shapes)
    if frames < FEWEST:
        raise KinemaError(f"the shortest clip has {frames} frames; STREAM needs at least {FEWEST}")
    if len({shape[1] for shape in shapes}) > 1:
        raise KinemaError("the clips have features of different widths; use features of one extractor for all")
    return [spectra(clips, frames) for clips in sets]


@set_metric(
    "stream_t",
    unit="squared correlation",
    sees="some_shuffled",
    ignores="backwards",
    **TOLD,
)
def stream_t(made: Features, reference: Features) -> float:
    """STREAM-T: whether the made clips move like the reference, by the spectra of the features of their frames.

    The skewness of each feature's spectrum in time, as a histogram of 50 bins over the made clips and one over the
    reference; squared correlation of the two, mean over features. 1 for equal sets. Looks at as many frames as the
    shortest clip has, even or odd. It cannot tell backwards from forwards. Take hundreds of clips: with features of
    EfficientNet two sets of 256 clips of 16 frames of one distribution reach 0.93, two of 128 0.82, two of 32 only
    0.35. A strong blur costs 0.08 as well (`python -m kinema.claims.stream`).
    """
    (motion, _), (reference_motion, _) = _both(made, reference)
    return histogram_agreement(motion, reference_motion)


@set_metric(
    "stream_f",
    unit="share",
    sees="some_blurred",
    ignores="shuffle",
    **TOLD,
)
def stream_f(made: Features, reference: Features) -> float:
    """STREAM-F, fidelity: the share of made clips that look like the reference, whatever the order of their frames.

    Precision with k = 5 neighbours of the size of each feature's mean over the clip; the sign is lost, as in the
    released code. Frames as in `stream_t`; of more than 10,000 clips a set, that many, evenly spread.
    """
    (_, look), (_, reference_look) = _both(made, reference)
    return share_within(look, reference_look, K)


@set_metric(
    "stream_d",
    unit="share",
    sees="fewer_modes",
    ignores="shuffle",
    **TOLD,
)
def stream_d(made: Features, reference: Features) -> float:
    """STREAM-D, diversity: the share of reference clips that some made clip looks like.

    Recall with k = 5 neighbours of what `stream_f` looks at.
    """
    (_, look), (_, reference_look) = _both(made, reference)
    return share_within(reference_look, look, K)
