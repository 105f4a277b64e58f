"""What a person sees of a training: a line with loss, speed and time left, a JSONL log, a loss curve."""

from __future__ import annotations

import json
import math
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TextIO

from PIL import Image, ImageDraw

from kinema import lettering

BLACK = (0, 0, 0)


def duration(seconds: float) -> str:
    """Seconds as 42s, 3m05s or 2h07m."""
    s = max(0, round(seconds))
    if s < 60:
        return f"{s}s"
    return f"{s // 60}m{s % 60:02d}s" if s < 3600 else f"{s // 3600}h{s % 3600 // 60:02d}m"


class Progress:
    """One line, rewritten in place on a terminal, and printed every `every` seconds elsewhere."""

    def __init__(self, stream: TextIO | None = None, every: float = 15.0) -> None:
        self.stream = stream or sys.stderr
        self.terminal = self.stream.isatty()
        self.every = 0.2 if self.terminal else every
        self.recent: deque[tuple[float, int]] = deque(maxlen=50)  # (time, clips seen)
        self.smooth: float | None = None
        self.shown = -math.inf

    def update(self, step: int, clips: int, loss: float, done: float, left: float | None) -> None:
        """Take in one step: `clips` seen in all, `done` the fraction 0..1, `left` seconds or None to estimate."""
        now = time.monotonic()
        self.recent.append((now, clips))
        self.smooth = loss if self.smooth is None else 0.98 * self.smooth + 0.02 * loss
        if now - self.shown >= self.every or done >= 1.0:
            self.shown = now
            self._show(self.line(step, done, left))

    def line(self, step: int, done: float, left: float | None) -> str:
        """The text of the line."""
        remaining = "" if left is None else f"  {duration(left)} left"
        return f"step {step}  {100 * done:5.1f}%  loss {self.smooth:.4f}  {self.speed():.1f} clips/s{remaining}"

    def speed(self) -> float:
        """Clips a second over the last 50 steps."""
        if len(self.recent) < 2:
            return 0.0
        (t0, n0), (t1, n1) = self.recent[0], self.recent[-1]
        return (n1 - n0) / (t1 - t0) if t1 > t0 else 0.0

    def close(self, message: str = "") -> None:
        """End the line, and say `message` on a line of its own."""
        if self.terminal:
            self.stream.write("\n")
        if message:
            self.stream.write(message + "\n")
        self.stream.flush()

    def tell(self, text: str) -> None:
        """What is being done between two steps."""
        self._show(text)

    def _show(self, text: str) -> None:
        self.stream.write(f"\r\033[K{text}" if self.terminal else text + "\n")
        self.stream.flush()


class Log:
    """A JSONL file with one object a step; reopened at a step, what came later is dropped."""

    def __init__(self, path: Path, step: int = 0) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [row for row in read_log(path) if row["step"] < step] if path.exists() else []
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        temporary.replace(path)
        self.file = path.open("a", encoding="utf-8")

    def write(self, row: Mapping[str, float]) -> None:
        self.file.write(json.dumps({k: v if isinstance(v, int) else float(f"{v:.9g}") for k, v in row.items()}) + "\n")

    def flush(self) -> None:
        self.file.flush()

    def close(self) -> None:
        self.file.close()


def read_log(path: Path) -> list[dict[str, float]]:
    """The rows of a JSONL log; a half-written last line (after a kill) is left out."""
    rows: list[dict[str, float]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def draw_curve(path: Path, rows: Sequence[Mapping[str, float]], key: str = "loss", width: int = 900) -> None:
    """Draw `key` over the steps as a PNG: every step pale, a running mean dark, logarithmic where all are positive.

    Rows of several trainings may follow each other: where the steps begin anew stands a line.
    """
    if len(points := _points(rows, key)) < 2:
        return
    title = f"{key} over {len(points):,} steps"
    _panel(points, title, width, logarithmic=min(value for _, value in points) > 0, parts=_counted(rows)[1]).save(path)


def draw_curves(path: Path, rows: Sequence[Mapping[str, float]], width: int = 900) -> None:
    """Draw each number of the rows over the steps as a PNG, one below the other; one value alone is left out."""
    keys = dict.fromkeys(key for row in rows for key in row if key != "step")
    found = {key: points for key in keys if len(points := _points(rows, key)) >= 2}
    panels = [_panel(points, f"{key}, {len(points):,} evaluations", width) for key, points in found.items()]
    if panels:
        height = panels[0].height
        image = Image.new("RGB", (width, height * len(panels)))
        for i, panel in enumerate(panels):
            image.paste(panel, (0, i * height))
        image.save(path)


def _points(rows: Sequence[Mapping[str, float]], key: str) -> list[tuple[float, float]]:
    """(step, value) of each row that has one."""
    steps, _ = _counted(rows)
    return [(step, row[key]) for step, row in zip(steps, rows, strict=True) if key in row and math.isfinite(row[key])]


def _counted(rows: Sequence[Mapping[str, float]]) -> tuple[list[float], list[float]]:
    """The step of each row, going on where a row begins to count anew, and the steps at which one does."""
    steps: list[float] = []
    begins: list[float] = []
    begun = 0.0
    for i, row in enumerate(rows):
        if i and row["step"] < rows[i - 1]["step"]:
            begun = steps[-1] + 1
            begins.append(begun)
        steps.append(begun + row["step"])
    return steps, begins


def _panel(
    points: Sequence[tuple[float, float]],
    title: str,
    width: int = 900,
    logarithmic: bool = False,
    parts: Sequence[float] = (),
) -> Image.Image:
    """A chart of (step, value), 420 pixels high; parts: steps at which a line stands."""
    steps, values = [p[0] for p in points], [p[1] for p in points]
    scaled = [math.log10(v) for v in values] if logarithmic else values
    order = sorted(scaled)
    low, high = order[0], order[-1]
    if high > 2 * order[int(0.995 * (len(order) - 1))] - low:  # a rare spike must not flatten the rest
        high = order[int(0.995 * (len(order) - 1))]
    high = high if high > low else low + 1e-6
    height, left, bottom, top = 420, 80, 48, 24
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)

    def place(step: float, value: float) -> tuple[float, float]:
        x = left + (width - left - 16) * (step - steps[0]) / max(1, steps[-1] - steps[0])
        y = height - bottom - (height - bottom - top) * (min(value, high) - low) / (high - low)
        return x, y

    for value in ticks(10**low, 10**high, logarithmic) if logarithmic else ticks(low, high):
        y = place(steps[0], math.log10(value) if logarithmic else value)[1]
        draw.line((left, y, width - 16, y), fill="#dddddd")
        lettering.write(image, (left - 8 - lettering.length(f"{value:g}"), y - 9), f"{value:g}", BLACK)
    for step in _round_steps(steps[0], steps[-1]):
        x = place(step, low)[0]
        draw.line((x, height - bottom, x, height - bottom + 4), fill="black")
        lettering.write(image, (x - lettering.length(f"{step:,}") / 2, height - bottom + 6), f"{step:,}", BLACK)
    for i, begun in enumerate(parts):
        x = place(begun, low)[0]
        draw.line((x, top, x, height - bottom), fill="#c2410c")
        lettering.write(image, (x + 4, top), f"part {i + 2}", (194, 65, 12))
    lettering.write(image, (width - 16 - lettering.length("step"), height - 22), "step", BLACK)
    lettering.write(image, (left, 3), f"{title}{', logarithmic' * logarithmic}", BLACK)
    draw.line([place(s, v) for s, v in zip(steps, scaled, strict=True)], fill="#b9cde8", width=1)
    smooth = _running_mean(scaled, min(50, len(scaled) // 20))
    draw.line([place(s, v) for s, v in zip(steps, smooth, strict=True)], fill="#1b4f9c", width=2)
    return image


def ticks(low: float, high: float, logarithmic: bool = False) -> list[float]:
    """Round numbers from `low` to `high`: 1, 2, 5, 10 ... where they are logarithmic and there are three, else even."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1) if logarithmic else ()
    found = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    if len(found := [value for value in found if low <= value <= high]) >= 3:
        return found if len(found) <= 8 else [value for value in found if round(math.log10(value), 9) % 1 == 0]
    gap = _round((high - low) / 5)
    return [round(i * gap, 12) for i in range(math.ceil(low / gap), math.floor(high / gap) + 1)]


def _round(size: float) -> float:
    """1, 2, 5 or 10 times a power of ten, not below `size`."""
    power = 10.0 ** math.floor(math.log10(size))
    return min(factor * power for factor in (1, 2, 5, 10) if factor * power >= size * (1 - 1e-9))


def _round_steps(first: float, last: float) -> list[int]:
    """About five round numbers from `first` to `last`."""
    gap = max(1, round(_round(max(1.0, (last - first) / 5))))
    return list(range(math.ceil(first / gap) * gap, math.floor(last) + 1, gap))


def _running_mean(values: Sequence[float], reach: int) -> list[float]:
    """The mean of each value and its neighbours, up to `reach` before and after; after it no more than before it."""
    sums = [0.0, *accumulate(values)]
    means = []
    for i in range(len(values)):
        first, last = max(0, i - reach), min(i + min(reach, i), len(values) - 1)
        means.append((sums[last + 1] - sums[first]) / (last + 1 - first))
    return means
