"""Diffusion Classifier: the text under which a model denoises a clip best is the one that fits it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from kinema.core.errors import KinemaError
from kinema.core.path import RectifiedFlow
from kinema.core.registry import reader
from kinema.core.run import seeded
from kinema.core.schedule import Clock

if TYPE_CHECKING:
    from kinema.backbones.protocol import Backbone
    from kinema.request import Request

Tell = Callable[[int, int], None]  # calls of the network done, and how many there will be
CLIPS = 8  # clips in one call of the network, at most


@dataclass(frozen=True)
class Score:
    """How well a text fits, beside the best one. Both numbers of the pair are taken at the samples that both have."""

    text: str
    error: float  # mean over its samples, no unit; only differences say something
    gap: float  # its error less that of the best text; 0 for the best
    standard_error: float | None  # of the gap, see `standard_error`; None for the best
    probability: float  # softmax(-gap / temperature), 0..1
    samples: int  # how many it was measured at


@dataclass(frozen=True)
class Classification:
    """Scores, the best fit first. `errors` (texts, samples) float64 in the order of the texts, NaN: not measured."""

    scores: tuple[Score, ...]
    errors: Tensor
    temperature: float

    @property
    def best(self) -> str:
        return self.scores[0].text

    def to_dict(self) -> dict[str, Any]:
        return {"best": self.best, "temperature": self.temperature, "scores": [asdict(score) for score in self.scores]}


@reader("diffusion_classifier", paper="arXiv:2303.16203", base="Stable Diffusion 2.0, DiT-XL/2", command="classify")
@dataclass(frozen=True, kw_only=True)
class DiffusionClassifier:
    """Chooses between texts by how well a model tells the noise in a clip under each of them.

    err_m = mean over s of w(t_s) |v(x_s, t_s, text_m) - (noise_s - x0)|^2,   x_s = (1 - t_s) x0 + t_s noise_s,

    a mean over latents too, with w(t) = (1 - t)^2, which is the error of the noise itself, as in the paper. The pairs
    (t_s, noise_s) are the same for all texts: only differences count, and what the noise does to them mostly cancels.
    Times lie in the middle of `samples` equal parts of the model's clock. There is no guidance.

    Paper: Li et al., "Your Diffusion Model is Secretly a Zero-Shot Classifier", 2023, arXiv:2303.16203.
    Departures: clips instead of pictures. The clock is t itself for models that learned velocities, training steps for
    those that learned noise. Grids of `eliminate` are nested, so that no sample is measured twice; its numbers are
    free, where the paper has them by data set (CIFAR-10: 5 texts after 50 samples, 1 after 500, with l1). The
    probability takes the standard error of the gaps as its temperature, unless one is given; the paper has none. A
    model that makes sound is asked with video and sound apart from each other.
    Shapes: x0 (1, C, T, H, W); weight (T,), or any shape that fits (T, H, W).
    Raises: KinemaError for settings out of range, fewer than two texts, and frames that are all given to the model.
    """

    samples: int = 64  # pairs of a time and noise, 2 or more
    weighting: Literal["noise", "velocity"] = "noise"  # whose error: w = (1 - t)^2, or w = 1
    l1: bool = False  # absolute differences instead of squares
    eliminate: tuple[tuple[int, int], ...] = ()  # (samples, texts): after so many samples so many texts stay
    temperature: float | None = None  # of the probability, in units of the error; None is the standard error of gaps
    shared_noise: bool = True  # False draws noise for each text by itself: to measure what sharing gains
    seed: int = 0  # of the noise

    def classify(
        self,
        backbone: Backbone,
        requests: Sequence[Request],
        x0: Tensor,
        weight: Tensor | None = None,
        tell: Tell | None = None,
    ) -> Classification:
        """The texts of `requests`, which agree in all else, ordered by how well they fit the clip with latents x0."""
        self.check([request.prompt for request in requests])
        errors = self.errors(backbone, requests, x0, weight, tell or (lambda done, count: None))
        return self.ranked([request.prompt for request in requests], errors)

    @torch.no_grad()
    def errors(
        self, backbone: Backbone, requests: Sequence[Request], x0: Tensor, weight: Tensor | None, tell: Tell
    ) -> Tensor:
        """(texts, samples) float64; NaN where a text was left out by then."""
        found = torch.full((len(requests), self.samples), math.nan, dtype=torch.float64)
        levels = self.levels(backbone)
        stages = list(self.stages(len(requests)))
        left, done, count = list(range(len(requests))), 0, sum(len(picked) * texts for picked, texts in stages)
        for picked, texts in stages:
            left = _best(found, left, texts)
            for part in (left[first : first + CLIPS] for first in range(0, len(left), CLIPS)):
                conditions = backbone.prepare([requests[m] for m in part])
                for s in picked:
                    drawn = [seeded(self._seed(s, m)) for m in part]
                    found[part, s] = self._errors(backbone, conditions, drawn, x0, levels[s], weight)
                    done += len(part)
                    tell(done, count)
        return found

    def _errors(
        self,
        backbone: Backbone,
        conditions: Any,
        generators: Sequence[torch.Generator],
        x0: Tensor,
        t: float,
        weight: Tensor | None,
    ) -> Tensor:
        """The error of each text of `conditions` at one time, (B,) float64."""
        path, noise = RectifiedFlow(), backbone.noise(conditions, generators)  # of a sound, too
        if noise.shape[1:] != x0.shape[1:]:
            ours, theirs = tuple(x0.shape[1:]), tuple(noise.shape[1:])
            raise KinemaError(f"latents of the clip are {ours}, and the model wants {theirs}; give it that size")
        x0 = x0.to(noise)
        x, true = path.add_noise(x0, noise, t), path.velocity(x0, noise)
        counted = torch.ones_like(x) if weight is None else torch.ones_like(x) * _by_cell(weight.to(x))
        if conditions.known is not None:
            x = torch.where(conditions.known_frames, conditions.known.to(x), x)
            counted = counted * ~conditions.known_frames
        if not bool((counted > 0).any()):
            raise KinemaError("no frame is left to compare; choose a part of the clip that the model is not given")
        if conditions.companion is not None:
            conditions.companion.answers.clear()
        v = backbone.velocity(x, t, conditions, frozenset({"modality"}) & backbone.droppable)
        off = (v.float() - true.float()).double()
        size = off.abs() if self.l1 else off.square()
        w = (1 - t) ** (1 if self.l1 else 2) if self.weighting == "noise" else 1.0
        found: Tensor = w * (size * counted).sum((1, 2, 3, 4)) / counted.double().sum((1, 2, 3, 4))
        return found.cpu()

    def levels(self, backbone: Backbone) -> list[float]:
        """The noise level t of each sample: the middles of equal parts of the model's clock."""
        places = [(s + 0.5) / self.samples for s in range(self.samples)]
        clock = getattr(backbone, "clock", None)
        return [clock.levels[int(p * len(clock.levels))] for p in places] if isinstance(clock, Clock) else places

    def stages(self, texts: int) -> Iterator[tuple[list[int], int]]:
        """Which samples are new in each stage, spread over all times, and at how many texts they are measured."""
        # Bits read backwards: any first samples lie evenly over all, exactly so where their number is a power of two.
        order = sorted(range(self.samples), key=lambda s: f"{s:010b}"[::-1])
        done = 0
        for count, keep in (*self.eliminate, (self.samples, 1)):
            yield order[done:count], texts
            done, texts = count, keep

    def ranked(self, texts: Sequence[str], errors: Tensor) -> Classification:
        """Scores from the errors (texts, samples). Of two texts the samples that both have are compared."""
        measured = ~errors.isnan()
        counts = measured.sum(1)
        means = errors.nansum(1) / counts
        order = sorted(range(len(texts)), key=lambda m: (-int(counts[m]), float(means[m])))
        best = order[0]
        gaps, spreads = [], []
        for m in order:
            differences = (errors[m] - errors[best])[measured[m] & measured[best]]
            gaps.append(float(differences.mean()))
            spreads.append(standard_error(differences))
        temperature = sum(spreads[1:]) / (len(texts) - 1) if self.temperature is None else self.temperature
        logits = -torch.tensor(gaps, dtype=torch.float64) / max(temperature, torch.finfo(torch.float64).tiny)
        shares = logits.clamp(min=-1e9, max=1e9).softmax(0).tolist()
        scores = tuple(
            Score(texts[m], float(means[m]), gap, None if m == best else spread, share, int(counts[m]))
            for m, gap, spread, share in zip(order, gaps, spreads, shares, strict=True)
        )
        return Classification(scores, errors, temperature)

    def _seed(self, sample: int, text: int) -> int:
        return self.seed + sample + (0 if self.shared_noise else self.samples * (1 + text))

    def check(self, texts: Sequence[str]) -> None:
        """Raises: KinemaError for settings out of range, and texts that are not two or more different ones."""
        if len(texts) < 2 or len({*texts}) < len(texts):
            raise KinemaError("there are not two different texts to choose between; give two or more, each once")
        if not 2 <= self.samples <= 1000:
            raise KinemaError(f"samples is {self.samples}; use 2 to 1000")
        if self.weighting not in ("noise", "velocity"):
            raise KinemaError(f"weighting is {self.weighting!r}; use noise or velocity")
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            raise KinemaError(f"temperature is {self.temperature}; use a number above 0")
        rows = ((0, len(texts)), *self.eliminate, (self.samples, 0))
        for before, (count, keep), after in zip(rows, self.eliminate, rows[2:], strict=False):
            if not (before[0] < count < after[0] and before[1] >= keep > after[1] and count > 1):
                raise KinemaError(
                    f"eliminate is {self.eliminate}; use samples that grow, from 2 to below {self.samples}, each with "
                    f"texts that do not grow, 1 or more and at most {len(texts)}"
                )


def standard_error(values: Tensor) -> float:
    """Of the mean of values (n,) that were sampled on an even grid, n at least 2.

    What changes smoothly along the grid is no error of its mean, so that the variance is taken from second differences
    (for n = 2 the first): Wolter, "Introduction to Variance Estimation", 2007, chapter 8, on systematic samples.
    """
    order = min(2, len(values) - 1)
    variance = values.diff(n=order).square().mean() / math.comb(2 * order, order)
    return float((variance / len(values)).sqrt())


def _best(errors: Tensor, among: Sequence[int], count: int) -> list[int]:
    """The `count` texts of least mean error so far, in the order they were given; all of them before the first."""
    ranked = sorted(among, key=lambda m: float(errors[m].nanmean().nan_to_num()))
    return sorted(ranked[:count])


def _by_cell(weight: Tensor) -> Tensor:
    """Weights by frame (T,), or by anything that fits (T, H, W), as they multiply latents."""
    return weight[:, None, None] if weight.ndim == 1 else weight
