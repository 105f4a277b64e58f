"""`kinema plan`: what a video would need, from the configs of a model alone."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import typer

from kinema.cli import options

if TYPE_CHECKING:
    from kinema.backbones.fitting import Fit
    from kinema.backbones.plan import Plan, Planner
    from kinema.request import Request

app = typer.Typer(add_completion=False)


@app.command()
def plan(
    model: str = options.placing("mini", metavar="MODEL", help="'mini', a folder in diffusers layout, or a hub id."),
    num_frames: options.NumFrames = None,
    height: options.Height = None,
    width: options.Width = None,
    steps: int = typer.Option(None, "--steps", metavar="STEPS", help="Solver steps."),
    guidance_scale: float = typer.Option(None, metavar="WEIGHT", help="1 is no guidance, which halves the work."),
    device: options.Device = None,
    dtype: options.Dtype = None,
    as_json: options.AsJson = False,
) -> None:
    """Tell what a video would need in memory, and what would make it fit, before anything is loaded.

    Weights, tokens and calls are exact; what sampling and decoding hold beside the weights is estimated.

    Example: kinema plan --model mini --num-frames 25 --height 128 --width 128 --dtype bfloat16
    """
    from kinema.backbones.fitting import fits as fits_of
    from kinema.backbones.load import planner
    from kinema.request import Request

    request = Request(
        num_frames=num_frames,
        height=height,
        width=width,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        model=model,
        device=device,
        dtype=dtype,
    )
    opened = planner(model, device, dtype)
    guided = is_guided(opened, request)
    made = opened.plan(request, guided)
    free = free_memory(str(opened.device))
    fits = _fits(made.most, free)
    placed = fits_of(opened, made)
    switches = switches_that_fit(opened, request, guided, free) if free is not None and not fits else []
    if as_json:
        totals: dict[str, Any] = {"weights": made.weights, "most": made.most, "free": free, "fits": fits}
        totals["switches"] = switches
        totals["placements"] = [
            {"switches": p.switches, "weights": p.weights, "most": p.most, "fits": _fits(p.most, free)} for p in placed
        ]
        print(json.dumps({**dataclasses.asdict(made), **totals, "estimated": ["activations", "decoding", "most"]}))
        return
    _show(made, free, switches, placed)


def _show(made: Plan, free: int | None, switches: list[str], placed: list[Fit]) -> None:
    from kinema.core.keep import in_frames

    print(f"{in_frames(made.num_frames)} of {made.width}x{made.height}, {made.model} on {made.device} in {made.dtype}")
    together = f", {made.samples} clips in each" if made.samples > 1 else ""
    print(f"{'tokens':<22}{made.tokens} of latents {'x'.join(map(str, made.latents[1:]))}")
    print(f"{'calls':<22}{made.calls} of the network in {made.num_inference_steps} steps{together}")
    for part in made.parts:
        disk = "" if part.disk is None else f", {_gb(part.disk)} on disk"
        print(f"{part.name:<22}{_gb(part.memory)} (exact; {part.parameters / 1e6:.1f} million weights{disk})")
    print(f"{'weights together':<22}{_gb(made.weights)} (exact)")
    print(f"{'a call beside them':<22}{_gb(made.activations)} (estimated)")
    print(f"{'decoding beside them':<22}{_gb(made.decoding)} (estimated)")
    print(f"{'most at one time':<22}{_gb(made.most)} (estimated)")
    if free is None:
        return
    if made.most <= free:
        print(f"It fits into the {_gb(free)} that are free here.")
        return
    print(f"It does not fit into the {_gb(free)} that are free here.")
    print(f"What would fit: {'; '.join(switches)}" if switches else "No dtype, length or size of this model would fit.")
    print("What switches would need, weights on the device and most at one time (estimated); see docs/memory.md:")
    for p in placed:
        print(f"{'fits' if p.most <= free else '':<6}{p.switches:<62}{_gb(p.weights):>10}{_gb(p.most):>12}")


def _fits(most: int, free: int | None) -> bool | None:
    return None if free is None else most <= free


def is_guided(opened: Planner, request: Request) -> bool:
    """Whether each step asks twice, with and without the prompt."""
    defaults = opened.backbone.defaults
    scale = defaults.guidance_scale if request.guidance_scale is None else request.guidance_scale
    return bool(scale != 1 and not defaults.embedded_guidance)


def switches_that_fit(opened: Planner, request: Request, guided: bool, free: int) -> list[str]:
    """Options that make the plan fit: a smaller type, then fewer frames, then fewer pixels, in the best type."""
    from kinema.backbones.load import planner
    from kinema.core.errors import KinemaError

    now, found, words = opened.plan(request, guided), [], []
    if opened.dtype.itemsize > 2:
        opened = planner(request.model, opened.device, "bfloat16")
        words = ["--dtype bfloat16"]
        if opened.plan(request, guided).most <= free:
            found.append(words[0])
    if opened.plan(request, guided).weights > free:
        return found

    def attempt(options: list[str], **changes: Any) -> bool:
        try:
            fits = opened.plan(request.changed(**changes), guided).most <= free
        except KinemaError:  # the model makes no such size
            return False
        if fits:
            found.append(" ".join([*words, *options]))
        return fits

    for frames in range(now.num_frames - 1, 0, -1):
        if attempt([f"--num-frames {frames}"], num_frames=frames):
            break
    for share in (0.75, 0.5, 0.375, 0.25):
        height, width = (round(n * share / 64) * 64 for n in (now.height, now.width))
        if min(height, width) and attempt([f"--height {height} --width {width}"], height=height, width=width):
            break
    return found


def free_memory(device: str) -> int | None:
    """Bytes that are free on a device; None where the system does not say."""
    import torch

    from kinema.cli.info import _memory

    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    free = _memory()[1]
    return None if free is None else int(free * 1e9)


def _gb(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
