"""`kinema generate`: a sentence in, a video out."""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from kinema.cli import options
from kinema.core.errors import KinemaError

if TYPE_CHECKING:
    from kinema.cli.when import Seen
    from kinema.take import Progress, Take

app = typer.Typer(add_completion=False)

memory = functools.partial(typer.Option, rich_help_panel="Memory and speed")
WORDS = {"load": "loading the model", "sample": "sampling", "decode": "decoding", "save": "saving"}


@app.command()
@options.of_a_request
def generate(
    given: dict[str, Any],
    prompt: str = typer.Argument(
        None, metavar="PROMPT", help="What the video shows; may be left out with --from, and for a model without words."
    ),
    image: str = typer.Option(None, metavar="PICTURE", help="First frame."),
    last_image: str = typer.Option(None, metavar="PICTURE", help="Last frame, where the model can."),
    video: str = typer.Option(None, metavar="CLIP", help="Clip of which the frames in --keep stay."),
    keep: str = typer.Option(
        None, metavar="FRAMES", help="Its frames that stay: 0:5 goes on from it, -4: leads to it, 0:5,-4: fills it."
    ),
    camera: str = typer.Option(
        None,
        metavar="MOVE|FILE",
        help="How the camera moves: orbit:40deg, 'pan left, then zoom in', or a .json of poses; docs/control.md.",
    ),
    timeline: str = typer.Option(
        None, metavar="EVENTS|FILE", help="What happens when: '0-3s: ... | 3-6s: ...', or a file of them; docs/cli.md."
    ),
    num_frames: options.NumFrames = None,
    seconds: options.Seconds = None,
    scheduler: str = options.sampling(
        None, metavar="NAME", help="Another solver than the model's own: euler, unipc, dpm++, ddim, ..."
    ),
    flow_shift: str = options.sampling(
        None, metavar="NUMBER|auto", help="Above 1 spends more steps close to noise; auto grows with the size."
    ),
    lora: list[str] = options.placing(
        None, metavar="PATH[:WEIGHT]", help="LoRA file (safetensors), folder or hub id; may be given several times."
    ),
    offload: str = memory(
        None, metavar="HOW", help="model, group or stream: weights come to the device only when used; docs/memory.md."
    ),
    quantization: str = memory(None, metavar="TYPE", help="int8, int4 or float8: weights in fewer bits."),
    text_quantization: str = memory(None, metavar="TYPE", help="The same for the text encoders."),
    layerwise_casting: bool = memory(None, help="Keep weights in float8 and compute in the dtype."),
    vae_tiling: bool = memory(None, help="Decode in tiles that overlap: less memory."),
    compile: bool = memory(None, help="Compile the blocks of the transformers: slow start, faster steps."),
    context_parallel: str = memory(
        None, metavar="HOW", help="ulysses: under torchrun, all processes make one video; docs/several-devices.md."
    ),
    remake: str = typer.Option(
        None, "--from", metavar="FILE", help="Make the video of this mp4, webm, gif or JSON again; options override it."
    ),
    out: options.Out = None,
    sheet: str = typer.Option(None, metavar="PICTURE", help="Its frames on one picture, under what happens when."),
    as_json: options.AsJson = False,
) -> None:
    """Make a video from a sentence, and from a first frame if there is one.

    What is left out takes the model's own default.

    Example: kinema generate "a red ball rolls to the left on the grass" --seed 7 --out ball.mp4
    """
    from kinema.request import Lora

    given |= options.known(
        prompt=prompt,
        image=image,
        last_image=last_image,
        video=video,
        keep=keep,
        camera=camera,
        timeline=timeline,
        num_frames=num_frames,
        seconds=seconds,
        scheduler=scheduler,
        flow_shift=flow_shift,
        lora=[Lora.parse(text).model_dump() for text in lora] if lora else None,
        offload=offload,
        quantization=quantization,
        text_quantization=text_quantization,
        layerwise_casting=layerwise_casting,
        vae_tiling=vae_tiling,
        compile=compile,
        context_parallel=context_parallel,
    )
    if all(what is None for what in (prompt, timeline, remake, image, video)):
        raise KinemaError("the prompt is missing; say what the video shows, or name a video to remake with --from")
    make(given, remake, out, as_json, sheet)


def make(given: dict[str, Any], remake: str | None, out: str | None, as_json: bool, sheet: str | None = None) -> None:
    """Makes the video of a request, or of a recipe with these changes. Everything that can be refused is refused before
    the model is loaded.

    Of several processes that make one video together, the first writes and tells.
    """
    from kinema import pipeline, recipe
    from kinema.cli import process, when
    from kinema.files import check_apart, check_writable
    from kinema.parts import Parts
    from kinema.request import Request, says_events
    from kinema.video import check_extension

    before = recipe.read(remake) if remake is not None else None
    asked = dict(before["request"]) if before else {}
    if "seconds" in given:
        asked.pop("num_frames", None)
    if asked.get("timeline") and "timeline" not in given and given.get("prompt") and says_events(given["prompt"]):
        given["timeline"] = None
    request = Request(**{**asked, **given})
    given |= {"timeline": request.timeline} if "timeline" in given else {}
    picture = when.check_sheet(sheet)
    path = check_extension(out or _default_out(remake))
    check_writable(path)
    read = [*recipe.inputs(request).values(), *([] if remake is None else [remake])]
    check_apart([path, *([] if picture is None else [picture])], read)
    beside = recipe.sidecar(path)
    rank, count = process()
    if count > 1 and request.context_parallel is None:
        raise KinemaError(f"{count} processes were started to make one video; add --context-parallel ulysses")
    clock = Stopwatch()
    with _shown(clock, rank == 0) as progress, pipeline.as_many_threads(before or {}):
        parts = Parts(path, request) if count == 1 else None
        try:
            before_it = 0 if parts is None else parts.count
            made = pipeline.take(request, progress, parts=parts)
            if before_it:
                print(f"kinema: going on behind {before_it} finished chunks", file=sys.stderr)
            if rank == 0:
                made.write(path, beside)
        except KeyboardInterrupt:
            if parts is not None and parts.count:
                kept = f"finished chunks ({parts.count}) are kept in {parts.folder}"
                print(f"kinema: interrupted; {kept}, and the same command goes on behind them", file=sys.stderr)
            raise
    if count > 1:
        from kinema.backbones import parallel

        parallel.leave()
    if rank == 0:
        _report(made, path, beside, clock, before, given, as_json, when.look(made, path, picture))


class Stopwatch:
    """Seconds in each phase, told by the same callback that moves the bar."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = time.perf_counter()

    def __call__(self, phase: str, done: int, count: int) -> None:
        now = time.perf_counter()
        if done == 0:
            self._began = now
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._began
        self._began = now


@contextmanager
def _shown(clock: Stopwatch, wanted: bool = True) -> Iterator[Progress]:
    """A bar on stderr, with time left; nothing where it is not wanted or stderr is not a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<17}"),
        BarColumn(),
        TextColumn("{task.fields[steps]}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not (wanted and console.is_terminal)) as bar:
        shown = {"phase": "", "chunk": ""}

        def tell(phase: str, done: int, count: int) -> None:
            if phase == "chunk":
                shown["chunk"] = f" {done} of {count}"
                return
            clock(phase, done, count)
            steps = f"{done}/{count}" if count > 1 else ""
            if phase != shown["phase"]:  # what takes one step only has a bar that moves without an end
                shown["phase"] = phase
                for task in bar.task_ids:
                    bar.remove_task(task)
                words = WORDS[phase] + (shown["chunk"] if phase == "sample" else "")
                bar.add_task(words, total=count if count > 1 else None, steps=steps)
            bar.update(bar.task_ids[0], completed=done, steps=steps)

        yield tell


def _default_out(remake: str | None) -> str:
    if remake is None:
        return "out.mp4"
    source = Path(remake)
    return f"{source.stem}-again{source.suffix if source.suffix.lower() in ('.mp4', '.webm', '.gif') else '.mp4'}"


def _report(
    take: Take,
    path: Path,
    beside: Path | None,
    clock: Stopwatch,
    before: dict[str, Any] | None,
    given: dict[str, Any],
    as_json: bool,
    seen: Seen,
) -> None:
    from kinema import recipe
    from kinema.core.keep import in_frames

    made, asked = take.made, take.made["request"]
    differing = [] if before is None else recipe.differences(before, made)
    changed = sorted(name for name in given if before and given[name] != before["request"].get(name))
    kept = ("frames", "sound")
    same = None if before is None or changed else all(made.get(what) == before.get(what) for what in kept)
    seconds = {phase: round(value, 3) for phase, value in clock.seconds.items()}
    if as_json:
        answer = {
            "path": str(path),
            "recipe": str(beside) if beside else None,
            "seed": asked["seed"],
            "num_frames": asked["num_frames"],
            "height": take.height,
            "width": take.width,
            "fps": asked["fps"],
            "sample_rate": None if take.sound is None else take.sample_rate,
            "model": asked["model"],
            "device": made["device"],
            "dtype": made["dtype"],
            "seconds": {**seconds, "total": round(sum(clock.seconds.values()), 3)},
            "peak_memory_mb": _peak_memory(),
            **seen.to_dict(),
        }
        if before is not None:
            answer |= {"same_frames": same, "changed": changed, "differences": differing}
        print(json.dumps(answer))
        return
    print(path)
    sound = "" if take.sound is None else f", sound at {take.sample_rate} Hz"
    if sound and path.suffix.lower() == ".gif":
        sound = ", without its sound, which a gif cannot hold"
    size = f"{take.width}x{take.height} at {take.fps:g} fps{sound}"
    print(f"{in_frames(asked['num_frames'])} of {size}, seed {asked['seed']}")
    print(f"{', '.join(f'{p} {s:.1f} s' for p, s in seconds.items())}; peak memory {_peak_memory()} MB")
    for line in (*_comparison(before, changed, same, differing), *seen.lines()):
        print(line)


def _comparison(before: Any, changed: list[str], same: bool | None, differing: list[str]) -> Iterator[str]:
    """How a remade video relates to the first one."""
    if before is None:
        return
    if changed:
        yield f"not the same request: {', '.join(changed)} changed"
    elif same:
        yield "the same frames as the first time, bit for bit"
    else:
        yield "not the same frames as the first time"
    for sentence in differing:
        yield f"  {sentence}"


def _peak_memory() -> int | None:
    """The most memory this process held at one time, in MB."""
    try:
        import resource
    except ImportError:  # not a Unix
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))
