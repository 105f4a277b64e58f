"""The objects of a clip: connected parts of the mask, followed through time, with boxes, places and colours."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from kinema.core.errors import KinemaError
from kinema.core.optional import library, opencv
from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.viewing import Viewing
from kinema.world.look import SKY_LOOKS
from kinema.world.vocabulary import COLOURS

SURE = 0.5  # a pixel belongs to an object from here on
SPECK = 0.0006  # of the picture; smaller parts are dropped (and all below 3 pixels)
BRIEF = 0.12  # of the clip; what is seen for a shorter time is dropped
FAINT = 0.02  # of the area of the largest object, over all frames; what has less is dropped
GAP = 2  # pixels at 128 rows; parts no further apart are one
REACH = 0.12  # of the picture's diagonal, how far an object may get beyond its own size from one frame to the next
VOTERS = 600  # pixels, evenly from all frames, that tell the colour
CLAIM = 0.3  # of an object in the frame before that must lie in a part for it to be the object's
CHANGE = 60.0  # distance of colours (0..255 in red, green and blue) that counts as much as a whole reach


@dataclass(frozen=True, eq=False)
class ObjectTrack:
    """One object. Pixel centres are at half integers, so that a box (x0, y0, x1, y1) of one pixel is (0, 0, 1, 1)."""

    boxes: np.ndarray  # (T, 4) float64 pixels; NaN where it is not seen
    area: np.ndarray  # (T,) int64 pixels
    centre: np.ndarray  # (T, 2) float64 pixels, x and y; NaN where it is not seen
    mask: np.ndarray  # (T, H, W) bool
    colour: tuple[float, float, float]  # mean, 0..1 sRGB
    word: str  # nearest of `world.vocabulary.COLOURS`

    @property
    def seen(self) -> np.ndarray:
        """(T,) bool."""
        return self.area > 0


@dataclass(eq=False)
class _Part:
    """A connected part of one frame's mask."""

    pixels: np.ndarray  # (P,) indices into the flat frame
    colour: np.ndarray  # (3,) mean
    centre: np.ndarray  # (2,) x, y
    size: float  # pixels, edge of the square of its area
    cut: bool = False  # from a larger part in which several objects had run together


@dataclass(eq=False)
class _Path:
    """A track that still grows."""

    parts: dict[int, _Part] = field(default_factory=dict)  # by frame
    colour: np.ndarray = field(default_factory=lambda: np.zeros(3))  # running mean
    centre: np.ndarray = field(default_factory=lambda: np.zeros(2))
    speed: np.ndarray = field(default_factory=lambda: np.zeros(2))  # pixels a frame
    last: int = -1  # frame in which it was last seen

    def add(self, t: int, part: _Part) -> None:
        if self.parts:
            self.speed = (part.centre - self.centre) / (t - self.last)
        rate = 0.3 if self.parts else 1.0
        self.colour = self.colour + rate * (part.colour - self.colour)
        self.parts[t], self.centre, self.last = part, part.centre, t

    @property
    def area(self) -> int:
        return sum(len(part.pixels) for part in self.parts.values())

    @property
    def alone(self) -> int:
        """In how many frames it was seen apart from all others."""
        return sum(not part.cut for part in self.parts.values())


def objects(clip: Viewing, extractor: Extractor) -> list[ObjectTrack]:
    """The objects that the extractor's masks show, the most important (largest and longest seen) first.

    Raises: KinemaError when the extractor gives no masks.
    """
    if "mask" not in extractor.gives:
        raise KinemaError(f"extractor {extractor.name!r} finds no objects; use one that gives masks, such as 'world'")

    def find() -> list[ObjectTrack]:
        sure = clip.once(("mask", extractor.label), lambda: extractor.mask(clip.frames))
        return tracks(clip.frames, sure > SURE)

    return clip.once(("objects", extractor.label), find)


def tracks(frames: np.ndarray, mask: np.ndarray) -> list[ObjectTrack]:
    """Objects of a clip (T, H, W, 3) uint8 by which pixels are of objects, (T, H, W) bool; see `objects`."""
    paths: list[_Path] = []
    brief = BRIEF * len(frames)
    for t in range(len(frames)):
        parts = _parts(frames[t], mask[t])
        known = [path for path in paths if path.last == t - 1 and path.alone >= brief]
        for path, part in _matches(paths, _apart(parts, known, t, frames[t]), t, np.hypot(*frames.shape[1:3])):
            if path is None:
                path = _Path()
                paths.append(path)
            path.add(t, part)
    longest = max((len(path.parts) for path in paths), default=0)
    largest = max((path.area for path in paths), default=0)
    kept = [path for path in paths if len(path.parts) >= min(brief, longest) and path.area >= FAINT * largest]
    return [_track(path, frames) for path in sorted(kept, key=lambda path: -path.area)]


def _parts(frame: np.ndarray, mask: np.ndarray) -> list[_Part]:
    """The parts of a frame's mask, connected or nearly so, that are no specks."""
    cv2 = opencv()
    reach = round(GAP * max(mask.shape) / 256)  # pixels, to both sides of a gap
    round_ = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    count, labels = cv2.connectedComponents(cv2.dilate(mask.astype(np.uint8), round_), connectivity=8)
    labels = np.where(mask, labels, 0).ravel()  # 0 is the background
    least = max(3.0, SPECK * mask.size)
    sizes = np.bincount(labels, minlength=count)
    return [_part(frame, np.flatnonzero(labels == label)) for label in range(1, count) if sizes[label] >= least]


def _part(frame: np.ndarray, pixels: np.ndarray) -> _Part:
    rows, columns = np.divmod(pixels, frame.shape[1])
    colour = frame.reshape(-1, 3)[pixels].mean(0, dtype=np.float64)
    return _Part(pixels, colour, np.array([columns.mean() + 0.5, rows.mean() + 0.5]), float(np.sqrt(len(pixels))))


def _apart(parts: list[_Part], paths: list[_Path], t: int, frame: np.ndarray) -> list[_Part]:
    """Parts in which several objects of the frame before have run together, cut so that each gets its own pixels.

    A pixel goes to the object whose expected place (in units of its size) and colour are nearest.
    """
    found = []
    for part in parts:
        claims = [path for path in paths if _within(path.parts[t - 1], part) > CLAIM]
        if len(claims) < 2:
            found.append(part)
            continue
        rows, columns = np.divmod(part.pixels, frame.shape[1])
        place = np.stack([columns + 0.5, rows + 0.5], -1)
        colour = frame.reshape(-1, 3)[part.pixels].astype(np.float64)
        cost = [
            np.linalg.norm(place - path.centre - path.speed, axis=-1) / path.parts[t - 1].size
            + np.linalg.norm(colour - path.colour, axis=-1) / CHANGE
            for path in claims
        ]
        owner = np.argmin(cost, axis=0)
        pieces = [part.pixels[owner == i] for i in range(len(claims))]
        found += [replace(_part(frame, pixels), cut=True) for pixels in pieces if len(pixels)]
    return found


def _within(before: _Part, now: _Part) -> float:
    """The share of a part of the frame before that lies in one of this frame."""
    return len(np.intersect1d(before.pixels, now.pixels, assume_unique=True)) / len(before.pixels)


def _matches(paths: list[_Path], parts: list[_Part], t: int, diagonal: float) -> list[tuple[_Path | None, _Part]]:
    """Each part with the path it continues, or None: the assignment with the least sum of distances.

    The distance is that of the part from where the path is expected, plus that of the colours, both in units of what
    is allowed; pairs beyond 1 in place or 2 together are never made.
    """
    if not paths or not parts:
        return [(None, part) for part in parts]
    cost = np.full((len(parts), len(paths)), 1e3)
    for i, part in enumerate(parts):
        for j, path in enumerate(paths):
            gap = t - path.last
            reach = 0.5 * (part.size + path.parts[path.last].size) + REACH * diagonal * np.sqrt(gap)
            ways = (path.centre, path.centre + path.speed * min(gap, 3))
            place = min(float(np.linalg.norm(part.centre - at)) for at in ways) / reach
            total = place + float(np.linalg.norm(part.colour - path.colour)) / CHANGE + 0.02 * gap
            if place < 1 and total < 2:
                cost[i, j] = total
    rows, columns = library("scipy.optimize").linear_sum_assignment(cost)
    chosen = {i: paths[j] for i, j in zip(rows.tolist(), columns.tolist(), strict=True) if cost[i, j] < 1e3}
    return [(chosen.get(i), part) for i, part in enumerate(parts)]


def _track(path: _Path, frames: np.ndarray) -> ObjectTrack:
    """A finished path as arrays over the whole clip."""
    count, height, width, _ = frames.shape
    boxes, centre = np.full((count, 4), np.nan), np.full((count, 2), np.nan)
    mask = np.zeros((count, height * width), dtype=bool)
    for t, part in path.parts.items():
        rows, columns = np.divmod(part.pixels, width)
        boxes[t] = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        centre[t] = part.centre
        mask[t, part.pixels] = True
    mask = mask.reshape(count, height, width)
    pixels = frames[mask] / 255
    red, green, blue = pixels.mean(0).tolist()
    return ObjectTrack(boxes, mask.sum((1, 2)), centre, mask, (red, green, blue), colour_word(pixels))


def colour_word(pixels: np.ndarray) -> str:
    """The word of `COLOURS` for a surface by its pixels, (P, 3) sRGB in 0..1.

    Light multiplies colours: a surface of albedo a looks a * (u * ambient + v * direct), where u falls to 0.6 below
    and v goes from 0 to 1 as it faces the sun (see `world.surface`). Each pixel goes to the word with the nearest of
    all these mixtures under any sky; the word of most pixels counts. Only the more colourful half has a vote, since
    patterns add pale or dark parts, and gloss adds the sky's.
    """
    some = pixels[np.linspace(0, len(pixels) - 1, min(len(pixels), VOTERS)).round().astype(int)]
    colourful = np.ptp(some, axis=1)
    some = some[colourful >= np.median(colourful)]
    return list(COLOURS)[int(np.bincount(colour_indices(some)).argmax())]


def colour_indices(pixels: np.ndarray, among: Sequence[int] | None = None) -> np.ndarray:
    """Which word of `COLOURS` each of a surface's pixels (P, 3) in 0..1 is nearest to, (P,); among: of these alone."""
    words, seen = _shades()
    if among is not None:
        asked = np.isin(words, among)
        words, seen = words[asked], seen[asked]
    found: np.ndarray = words[np.square(pixels[:, None] - seen).sum(-1).argmin(1)]
    return found


@functools.cache
def _shades() -> tuple[np.ndarray, np.ndarray]:
    """Indices of words, (N,), and how their colours look, (N, 3), under every sky and in steps of light."""
    lights = [
        u * np.array(sky.ambient) + v * np.array(sky.direct)
        for sky in SKY_LOOKS.values()
        for u in np.linspace(0.7, 1, 4)
        for v in np.linspace(0, 0.9, 7)
    ]
    words = np.arange(len(COLOURS)).repeat(len(lights))
    return words, (np.array(list(COLOURS.values()))[:, None] * lights).reshape(-1, 3)
