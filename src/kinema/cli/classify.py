"""`kinema classify`: which of some texts fits a video, by the error with which a model denoises it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from kinema.cli import options
from kinema.core.errors import KinemaError

if TYPE_CHECKING:
    from kinema.understanding.diffusion_classifier import Classification

app = typer.Typer(add_completion=False)


@app.command()
def classify(
    video: options.Clip,
    texts: list[str] = typer.Argument(..., metavar="TEXT TEXT ...", help="Two or more, alike in length and form."),
    model: str = options.placing("mini", metavar="MODEL", help="An embedded model, a folder, or a hub id."),
    samples: int = typer.Option(64, metavar="COUNT", help="Pairs of noise and a noise level, the same for all texts."),
    weighting: str = typer.Option("noise", metavar="noise|velocity", help="Whose error counts; noise: as published."),
    l1: bool = typer.Option(False, "--l1", help="Absolute differences instead of squares."),
    eliminate: list[str] = typer.Option(
        None, metavar="SAMPLES:TEXTS", help="After so many samples go on with so many texts; repeatable."
    ),
    seconds: str = typer.Option(None, metavar="FROM:TO", help="Part of the video that counts."),
    num_frames: int = options.size(None, metavar="FRAMES", help="Taken evenly from it; default: the model's own."),
    height: options.Height = None,
    width: options.Width = None,
    seed: int = typer.Option(0, metavar="NUMBER", help="Of the noise."),
    device: options.Device = None,
    dtype: options.Dtype = None,
    as_json: options.AsJson = False,
) -> None:
    """Tell which of some texts fits a video best, without training (Diffusion Classifier, arXiv:2303.16203).

    Example: kinema classify ball.mp4 "a red ball rolls to the left" "a red ball rolls to the right"
    """
    from kinema.cli.eval import shown
    from kinema.understanding.classify import classify as run

    stages = tuple(_pair(text, int, "--eliminate", "8:2") for text in eliminate or ())
    part = None if seconds is None else _pair(seconds, float, "--seconds", "0:1.5")
    with shown("calls", "nothing is kept of it") as tell:
        tell(0, samples * len(texts), 0)
        found = run(
            video,
            texts,
            model=model,
            samples=samples,
            weighting=weighting,
            l1=l1,
            eliminate=stages,
            seconds=part,
            num_frames=num_frames,
            height=height,
            width=width,
            seed=seed,
            device=device,
            dtype=dtype,
            progress=lambda done, count: tell(done, count, 0),
        )
    if as_json:
        print(
            json.dumps({"video": video, "model": model, "samples": samples, "weighting": weighting} | found.to_dict())
        )
    else:
        _print(found)


def _pair(text: str, kind: type, option: str, example: str) -> tuple[Any, Any]:
    first, colon, second = text.partition(":")
    try:
        if not colon:
            raise ValueError
        return kind(first), kind(second)
    except ValueError:
        raise KinemaError(f"{option} is {text!r}; use two numbers with a colon, as in {example}") from None


def _print(found: Classification) -> None:
    from kinema.cli.tables import show

    columns = [("text", "left"), ("probability", "right"), ("error above the best", "right"), ("samples", "right")]
    rows = [
        (
            score.text,
            f"{score.probability:.1%}",
            "-" if score.standard_error is None else f"{score.gap:.2e} +- {score.standard_error:.1e}",
            str(score.samples),
        )
        for score in found.scores
    ]
    show(columns, rows, spare=("samples",))
