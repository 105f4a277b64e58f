"""Options that the claims on models share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Seed = Annotated[int, typer.Option(help="Clip i is made with seed + i.")]
Model = Annotated[str, typer.Option(help="An embedded model, a folder, or a hub id.")]
Steps = Annotated[int | None, typer.Option(help="Solver steps; default: the model's own.")]
GuidanceScale = Annotated[float | None, typer.Option(help="Default: the model's own.")]
Batch = Annotated[int, typer.Option(min=1, help="Clips made together.")]
Device = Annotated[str | None, typer.Option(help="Default: the fastest there is.")]
Dtype = Annotated[str | None, typer.Option(help="Default: what suits the device.")]
AsJson = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the numbers there.")]
Card = Annotated[bool, typer.Option(help="Write the numbers into the model's card.json.")]
