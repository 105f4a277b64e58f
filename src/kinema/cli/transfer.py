"""`kinema transfer`: a new scene that moves as a clip does."""

from __future__ import annotations

import math
from typing import Any

import typer

from kinema.cli import options
from kinema.core.errors import KinemaError

app = typer.Typer(add_completion=False)


@app.command()
@options.of_a_request
def transfer(
    given: dict[str, Any],
    reference: str = typer.Argument(..., metavar="REFERENCE", help="Whose motion: a video, or a folder of pictures."),
    prompt: str = typer.Argument(..., metavar="PROMPT", help="What the new video shows."),
    positions: bool = typer.Option(
        False, "--positions", help="Optimise the positions of the tokens, which can be kept, and not the latents."
    ),
    save_tables: str = typer.Option(
        None, metavar="FILE", help="Keep the positions for other prompts (safetensors); means --positions."
    ),
    tables: str = typer.Option(
        None, metavar="FILE", help="Use positions that were kept, without optimising; means --positions."
    ),
    lr: float = typer.Option(
        None, metavar="RATE", help="How far each step of the optimiser goes; falls to half. Default: 0.002."
    ),
    until: float = typer.Option(
        None, metavar="LEVEL", help="Noise level down to which motion is guided, 1 to 0. Default: 0.895."
    ),
    iterations: int = typer.Option(None, metavar="COUNT", help="Steps of the optimiser in each solver step."),
    block: int = typer.Option(None, metavar="BLOCK", help="Whose attention is compared; default: the middle one."),
    inject: bool = typer.Option(True, help="Let the first block read the reference while motion is guided."),
    num_frames: options.NumFrames = None,
    out: options.Out = None,
    as_json: options.AsJson = False,
) -> None:
    """Make a video of something else that moves as a clip does (DiTFlow, arXiv:2412.07776).

    What moves in the reference is found in the model's attention, so any clip will do; it is stretched to the length
    and the size of the video. With --save-tables the motion is kept in a file, and --tables gives it to other prompts
    at no cost.

    Example: kinema transfer ball.mp4 "a blue cube on the snow" --out cube.mp4
    """
    from kinema.cli.generate import make

    options.check_there(reference)
    if tables and save_tables:
        raise KinemaError("--tables uses positions and --save-tables makes new ones; give one of them")
    if lr is not None and not 0 < lr < math.inf:
        raise KinemaError(f"--lr is {lr:g}; use a number above 0")
    if until is not None and not 0 <= until <= 1:
        raise KinemaError(f"--until is {until:g}; use a noise level, 1 to 0")
    given |= options.known(prompt=prompt, num_frames=num_frames)
    method = "ditflow_positions" if positions or tables or save_tables else "ditflow"
    following = options.around(
        given,
        method,
        reference=reference,
        tables=tables,
        save=save_tables,
        lr=None if lr is None else (lr, lr / 2),
        noise_range=None if until is None else (1.0, until),
        iterations=iterations,
        block=block,
        inject=None if inject else False,
    )
    fields = {"reference": reference, "iterations": "--iterations", "block": "--block", "tables": "--tables"}
    with options.in_words("transfer", method, **fields):
        make(following, None, out, as_json)
