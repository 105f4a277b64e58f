"""Options that several commands take, each with its help once; and all those of a request in one place."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from kinema.core.errors import KinemaError

# Options under a heading of the help.
size = functools.partial(typer.Option, rich_help_panel="Size and length")
sampling = functools.partial(typer.Option, rich_help_panel="Sampling")
placing = functools.partial(typer.Option, rich_help_panel="Model and device")

Clip = Annotated[str, typer.Argument(metavar="VIDEO", help="mp4, webm, gif, a picture, or a folder of pictures.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Out = Annotated[
    str | None, typer.Option(metavar="PATH", help="out.mp4 (default), .webm, .gif, or a folder for pictures.")
]

NumFrames = Annotated[
    int | None, size(metavar="FRAMES", help="Length; default: the model's own. Most want 1, 5, 9 ... (4k + 1).")
]
Seconds = Annotated[float | None, size(metavar="SECONDS", help="Length in place of --num-frames.")]
Height = Annotated[int | None, size(metavar="PIXELS", help="Rows; default: the model's own.")]
Width = Annotated[int | None, size(metavar="PIXELS", help="Columns; default: the model's own.")]
Fps = Annotated[float | None, size(metavar="RATE", help="Frames per second; default: the model's own.")]

NegativePrompt = Annotated[str | None, sampling(metavar="TEXT", help="What the video should not show.")]
NumInferenceSteps = Annotated[
    int | None, sampling(metavar="STEPS", help="Solver steps, 1 to 1000; more is slower and finer.")
]
GuidanceScale = Annotated[
    float | None, sampling(metavar="WEIGHT", help="How strongly to follow the prompt; 1 is no guidance.")
]
Technique = Annotated[
    list[str] | None,
    sampling(
        metavar="NAME[:FIELD=VALUE,...]", help="A method to use, the outermost first; may be given several times."
    ),
]
Seed = Annotated[
    int | None, sampling(metavar="NUMBER", help="The same seed makes the same video; drawn and printed if left out.")
]

Model = Annotated[
    str | None, placing(metavar="MODEL", help="'mini' (default), a folder in diffusers layout, or a hub id.")
]
Device = Annotated[str | None, placing(metavar="DEVICE", help="cpu, cuda, cuda:1, mps; default: the fastest there is.")]
Dtype = Annotated[
    str | None, placing(metavar="TYPE", help="float32, bfloat16 or float16; default: what suits model and device.")
]

REQUEST: dict[str, Any] = {  # of every command that makes a video, named as in kinema.Request, techniques apart
    "negative_prompt": NegativePrompt,
    "height": Height,
    "width": Width,
    "fps": Fps,
    "num_inference_steps": NumInferenceSteps,
    "guidance_scale": GuidanceScale,
    "technique": Technique,
    "seed": Seed,
    "model": Model,
    "device": Device,
    "dtype": Dtype,
}


def of_a_request(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options of `REQUEST` to a command, whose first argument is a dict of those that were given."""
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    shared = [
        inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=REQUEST[n]) for n in REQUEST
    ]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        given = known(**{name: values.pop(name) for name in REQUEST})
        if texts := given.pop("technique", None):
            from kinema.request import Part

            given["techniques"] = [Part.parse(text) for text in texts]
        command(given, **values)

    run.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *shared)}
    return run


def known(**values: Any) -> dict[str, Any]:
    """Those that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def around(given: dict[str, Any], name: str, **options: Any) -> dict[str, Any]:
    """The same with a technique around those that were given; options that are None have their defaults."""
    from kinema.request import Part

    return {**given, "techniques": [Part(name=name, options=known(**options)), *given.get("techniques", ())]}


@contextmanager
def in_words(command: str, technique: str, **fields: str) -> Iterator[None]:
    """What the technique behind a command refuses is told with the command's name, and its fields as in `fields`."""
    try:
        yield
    except KinemaError as error:
        text = re.sub(rf"\b(\w+) of {technique}\b", lambda said: fields.get(said[1], said[0]), str(error))
        text = re.sub(rf"\b{technique}:(\w+)=", lambda said: f"{fields.get(said[1], said[0][:-1])} ", text)
        raise KinemaError(re.sub(rf"(?<!adapter )(?<!adapter ')\b{technique}\b", command, text)) from error


def check_there(*paths: str) -> None:
    """Raises: KinemaError when one of the paths is no file and no folder."""
    from pathlib import Path

    for path in paths:
        if not Path(path).exists():
            raise KinemaError(f"there is no file or folder {path}")
