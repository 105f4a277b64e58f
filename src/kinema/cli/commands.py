"""The tree of commands. Each one lives in its own module, which is imported when it is called and not before."""

from __future__ import annotations

import importlib
from typing import Any

import typer
from typer.core import TyperCommand

# name -> (module that holds a typer app called `app`, what the list of commands says)
COMMANDS = {
    "generate": ("kinema.cli.generate", "Make a video from a sentence, and from a first frame if there is one."),
    "animate": ("kinema.cli.animate", "Make a photo move, as much as you say."),
    "extend": ("kinema.cli.extend", "Continue a video by some seconds."),
    "edit": ("kinema.cli.edit", "Give a clip another look, and keep where things are."),
    "transition": ("kinema.cli.transition", "Make a video from the end of one clip to the beginning of another."),
    "transfer": ("kinema.cli.transfer", "Make a video of something else that moves as a clip does."),
    "plan": ("kinema.cli.plan", "Tell what a video would need in memory, before anything is loaded."),
    "show": ("kinema.cli.show", "Lay the frames of a video out on one picture."),
    "score": ("kinema.cli.score", "Read what a video shows, and compare it with a prompt."),
    "classify": ("kinema.cli.classify", "Tell which of some texts fits a video, by how well a model denoises it."),
    "eval": ("kinema.cli.eval", "Measure all clips of a folder, beside a reference and their prompts."),
    "compare": ("kinema.cli.compare", "Compare two folders of clips, pair by pair."),
    "claims": ("kinema.cli.claims", "Measure again what the papers of methods claim."),
    "train": ("kinema.cli.train", "Train the models that kinema ships, from nothing."),
    "world": ("kinema.cli.world", "Draw clips of a small 3D world, with everything that is true about them."),
    "metrics": ("kinema.cli.metrics", "List the metrics that eval --metrics takes, or explain one."),
    "techniques": ("kinema.cli.techniques", "List the methods that --technique takes, or explain one."),
    "models": ("kinema.cli.info:models", "List the embedded models, and how to name others."),
    "schema": ("kinema.cli.info:schema", "Print everything a request may hold, as JSON schema."),
    "doctor": ("kinema.cli.info:doctor", "Tell what is installed here, and what would make it faster."),
}


class Later(TyperCommand):
    """Stands for a command until it is called."""

    def __init__(self, name: str, place: str, summary: str) -> None:
        super().__init__(name, help=summary, callback=None)
        self.place = place

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        module, _, attribute = self.place.partition(":")
        app = getattr(importlib.import_module(module), attribute or "app")
        found = typer.main.get_command(app)
        if found.help:  # lines of a paragraph are one, as the terminal breaks them itself
            found.help = "\n\n".join(" ".join(part.split()) for part in found.help.split("\n\n"))
        return found.make_context(info_name, args, parent=parent, **extra)


def command() -> Any:
    """The whole command line as one click group."""
    app = typer.Typer(no_args_is_help=True, add_completion=False)
    app.callback()(_kinema)
    group: Any = typer.main.get_command(app)
    for name, (place, summary) in COMMANDS.items():
        group.add_command(Later(name, place, summary), name)
    return group


def _version(wanted: bool) -> None:
    if wanted:
        from kinema import __version__

        typer.echo(f"kinema {__version__}")
        raise typer.Exit


def _kinema(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
    debug: bool = typer.Option(False, "--debug", help="Show where an error came from (KINEMA_DEBUG=1 does it too)."),
) -> None:
    """Make video with any video diffusion model.

    Begin with: kinema generate "a red ball bounces on the grass, then rolls to the left" --out ball.mp4

    Exit codes: 0 done, 2 bad input, 130 interrupted, 1 anything else.
    """
