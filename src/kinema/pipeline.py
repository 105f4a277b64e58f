"""From a request to a video: load the model, run the loop, write down the recipe."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeGuard, get_args, get_origin, get_type_hints

import numpy as np
from pydantic import PydanticUserError, TypeAdapter, ValidationError

from kinema import recipe
from kinema.core.errors import KinemaError
from kinema.pictures import address, open_picture
from kinema.request import ContextParallel, Offload, Part, Placement, Quantization, Request, loras
from kinema.take import Progress, Take, described
from kinema.timeline import Timeline
from kinema.timing import check_times, lasting, tell_events
from kinema.video import Video, clip_address, open_clip

if TYPE_CHECKING:
    from torch import Tensor

    from kinema.backbones.protocol import Backbone
    from kinema.core.adapter import Adapter
    from kinema.core.technique import Step, Technique
    from kinema.parts import Parts


def generate(
    prompt: str = "",
    *,
    image: str | os.PathLike[str] | np.ndarray | Any | None = None,
    last_image: str | os.PathLike[str] | np.ndarray | Any | None = None,
    video: str | os.PathLike[str] | np.ndarray | Video | Sequence[Any] | None = None,
    keep: str | None = None,
    camera: str | os.PathLike[str] | None = None,
    negative_prompt: str = "",
    timeline: str | os.PathLike[str] | Timeline | None = None,
    num_frames: int | None = None,
    seconds: float | None = None,
    height: int | None = None,
    width: int | None = None,
    fps: float | None = None,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    scheduler: str | None = None,
    flow_shift: float | Literal["auto"] | None = None,
    seed: int | None = None,
    model: str | os.PathLike[str] | Backbone = "mini",
    device: str | None = None,
    dtype: str | None = None,
    lora: Any = (),
    offload: Offload | None = None,
    quantization: Quantization | None = None,
    text_quantization: Quantization | None = None,
    layerwise_casting: bool = False,
    vae_tiling: bool = False,
    compile: bool = False,
    context_parallel: ContextParallel | None = None,
    techniques: str | Mapping[str, Any] | Part | Technique | Sequence[str | Mapping[str, Any] | Part | Technique] = (),
    progress: Progress | None = None,
) -> Video:
    """Makes one video; what is None takes the model's default, a seed is drawn.

    `prompt` says what it shows; leave it out for a model that reads no words. `image` and `last_image` are the
    first and last frame: a path, a PIL picture or an array (H, W, 3) uint8. `video` is a clip of which the frames
    in `keep` stay ("0:5", "-4:", "0:5,-4:"): a path, a `Video`, an array (T, H, W, 3) uint8 or PIL pictures. `camera`
    says how the camera moves, "orbit:40deg" or a JSON file of poses, where the model has an adapter for it.
    `model` is "mini", a folder in diffusers layout, a hub id, or what `kinema.load` returned (quicker when called
    often). `lora` is a LoRA file or a list of them, each a path, "PATH:weight" or (path, weight). `offload`,
    `quantization`, `text_quantization`, `layerwise_casting`, `vae_tiling` and `compile`: see docs/memory.md.
    `context_parallel` "ulysses": several processes make one video, see docs/several-devices.md. `techniques` are
    technique objects, registered names, or {"name": ..., "options": {...}}, one or several, the outermost first.
    `timeline` says what happens when, "0-3s: ... | 3-6s: ...", a YAML file or a `Timeline`; `prompt` is then what all
    of it shares. `seconds` says the length in place of `num_frames`.
    Units and ranges of the other arguments: see `Request`. `progress(phase, done, count)` is called on the way.
    Returns a `Video` that carries its recipe, seed included, in `metadata["kinema"]`.
    Raises: KinemaError (a ValueError), one sentence, before the first step, for anything that cannot be done.
    """
    loaded = None if isinstance(model, str | os.PathLike) else model
    if loaded is not None and (device is not None or dtype is not None):
        raise KinemaError("the model is loaded already; give device and dtype to kinema.load")
    if loaded is not None and lora:
        raise KinemaError("the model is loaded already; give lora to kinema.load")
    switches: dict[str, Any] = dict(
        offload=offload,
        quantization=quantization,
        text_quantization=text_quantization,
        layerwise_casting=layerwise_casting,
        vae_tiling=vae_tiling,
        compile=compile,
        context_parallel=context_parallel,
    )
    if loaded is not None and (given := next((name for name, value in switches.items() if value), None)):
        raise KinemaError(f"the model is loaded already; give {given} to kinema.load")
    request = Request(
        prompt=prompt,
        negative_prompt=negative_prompt,
        image=_address(image),
        last_image=_address(last_image),
        video=_clip_address(video),
        keep=keep,
        camera=camera if camera is None else os.fspath(camera),
        timeline=timeline,
        num_frames=num_frames,
        seconds=seconds,
        height=height,
        width=width,
        fps=fps,
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        scheduler=scheduler,
        flow_shift=flow_shift,
        seed=seed,
        model=os.fspath(model) if isinstance(model, str | os.PathLike) else model.name,
        device=device,
        dtype=dtype,
        lora=loras(lora),
        **switches,
        techniques=_parts(techniques),
    )
    return run_request(request, progress, loaded)


def run_request(request: Request, progress: Progress | None = None, backbone: Backbone | None = None) -> Video:
    """Makes the video of a request; `backbone` is its model when it is loaded already.

    The returned video's recipe holds the request with everything filled in that the model decided.
    Raises: KinemaError, one sentence, before the first step, for anything that cannot be done.
    """
    return take(request, progress, backbone).video()


def take(
    request: Request, progress: Progress | None = None, backbone: Backbone | None = None, parts: Parts | None = None
) -> Take:
    """The same up to its first chunk: `Take.video` and `Take.write` make the rest, the second straight into a file.

    parts: where the chunks of a longer video are kept until it is written; those that are there are not made again.
    """
    tell = progress or (lambda phase, done, count: None)
    if not request.text and request.image is None and request.video is None:  # some make video from pictures alone
        raise KinemaError("prompt is empty, and there is no image; say what the video shows")
    if parts is not None and parts.seed is not None:
        request = request.changed(seed=parts.seed)
    request = request.seeded()
    techniques = [build_technique(part) for part in request.techniques]
    check_times(request, techniques)
    tell_events(request, techniques)
    inputs = recipe.hash_inputs(request)  # before loading: a missing or broken picture is known at once
    for field in ("image", "last_image"):
        if getattr(request, field) is not None:
            open_picture(getattr(request, field), field)
    if request.video is not None:
        open_clip(request.video)
    tell("load", 0, 1)

    from kinema.core.rollout import Rollout

    backbone = _model(request, backbone)
    techniques = _steered(request, techniques, backbone)
    request = lasting(request, backbone)
    if backbone.placement.context_parallel:
        from kinema.backbones import parallel

        request = request.changed(seed=parallel.agreed(request.seed or 0, backbone.device))
    techniques = _guided(request, techniques, backbone)
    _check_negative(request, techniques, backbone)
    weights = recipe.hash_weights(backbone.folder.path)
    weights |= {f"LoRA {lora.path}": digest for lora, digest in backbone.lora}
    from kinema.core.adapter import folder_of

    weights |= {f"adapter {t.name}": recipe.hash_folder(folder_of(t, backbone)) for t in techniques if _trained(t)}
    hashes = {"weights": weights, "inputs": inputs}
    if parts is not None:
        parts.bind(described(request, backbone, hashes))

    def sampled(step: Step, x: Tensor) -> None:
        chunk = step.run.chunk if step.run is not None else None
        if chunk is not None and chunk.count > 1 and step.index == 0:
            tell("chunk", chunk.index + 1, chunk.count)
        tell("sample", step.index + 1, step.count)

    rollout = Rollout(backbone, request, techniques, sampled, parts)
    if len(rollout.chunks) > 1 and backbone.placement.context_parallel:
        raise KinemaError("a video of several chunks is made on one device; leave context_parallel out")
    tell("load", 1, 1)
    return Take(request, rollout, hashes, tell, parts)


def _model(request: Request, backbone: Backbone | None) -> Backbone:
    """The model of a request. Raises: KinemaError where the one that is loaded already is another."""
    from kinema.backbones.load import load

    if backbone is None:
        return load(request.model, request.device, request.dtype, request.lora, **request.placement.switches())
    if request.lora not in ((), tuple(lora for lora, _ in backbone.lora)):
        raise KinemaError("the request names other LoRA files than the loaded model has; give lora to kinema.load")
    if request.placement not in (Placement(), backbone.placement):
        raise KinemaError("the request asks for another placement than the loaded model has; give it to kinema.load")
    return backbone


def replay(path: str | os.PathLike[str], progress: Progress | None = None, **changes: Any) -> tuple[Video, list[str]]:
    """Makes the video of a recipe again, from a video kinema made or from the JSON beside it.

    `changes` are fields of the request to take instead of the recipe's. Sums are taken over as many CPU threads as
    the first time. Returns the video and what differs from the first time, a sentence each; when nothing differs
    and nothing was changed, the frames and the saved file are the same bit for bit on the same machine.
    Raises: KinemaError, one sentence, when there is no recipe or it cannot be made here.
    """
    before = recipe.read(path)
    request = Request(**{**before["request"], **changes})
    with as_many_threads(before):
        video = run_request(request, progress)
    return video, recipe.differences(before, video.metadata[recipe.KEY])


@contextmanager
def as_many_threads(before: Mapping[str, Any]) -> Iterator[None]:
    """Sums are taken over as many CPU threads as for a recipe, until the block ends."""
    import torch

    threads = torch.get_num_threads()
    if isinstance(before.get("threads"), int) and 1 <= before["threads"] <= 1024:
        torch.set_num_threads(before["threads"])
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _address(picture: Any) -> str | None:
    """A picture in memory becomes part of the request, so that its recipe is complete."""
    if picture is None or isinstance(picture, str | os.PathLike):
        return None if picture is None else os.fspath(picture)
    from PIL import Image

    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise KinemaError(f"image is an array {picture.shape} {picture.dtype}; use (height, width, 3) uint8")
        picture = Image.fromarray(picture)
    if not isinstance(picture, Image.Image):
        raise KinemaError(f"image is a {type(picture).__name__}; give a path, a PIL picture or an array")
    return address(picture)


def _clip_address(clip: Any) -> str | None:
    """A clip in memory becomes part of the request, as a picture does."""
    if clip is None or isinstance(clip, str | os.PathLike):
        return None if clip is None else os.fspath(clip)
    frames = clip.frames if isinstance(clip, Video) else clip
    if isinstance(frames, Sequence):
        frames = np.stack([np.asarray(open_picture(picture, "video")) for picture in frames])
    if not isinstance(frames, np.ndarray):
        raise KinemaError(f"video is a {type(clip).__name__}; give a path, a Video, an array or PIL pictures")
    return clip_address(Video(frames, fps=1.0).frames)  # a Video says what is wrong with frames


def _parts(given: Any) -> tuple[Any, ...]:
    """One technique, or several."""
    several = isinstance(given, Iterable) and not isinstance(given, str | Mapping | Part)
    return tuple(_part(one) for one in (given if several else [given]))


def _part(technique: str | Mapping[str, Any] | Part | Technique) -> Any:
    """A technique as a request names it: its registered name and the fields that are not at their defaults."""
    if isinstance(technique, str | Mapping | Part):
        return technique
    if not dataclasses.is_dataclass(technique) or isinstance(technique, type):
        raise KinemaError(
            f'{technique!r} is no technique; give a name, {{"name": ..., "options": {{...}}}}, or an object of a class'
        )
    if not getattr(technique, "name", ""):
        raise KinemaError(f"{technique!r} is not a registered technique; put @technique(...) on its class")
    values = {f.name: getattr(technique, f.name) for f in dataclasses.fields(technique) if f.init}
    defaults = {f.name: f.default for f in dataclasses.fields(technique)}
    return Part(name=technique.name, options={k: v for k, v in values.items() if v != defaults[k]})


def build_technique(part: Part) -> Technique:
    """The technique that a part of a request names. Raises: KinemaError."""
    from kinema.core.registry import find

    cls = find(part.name).cls
    known = [f.name for f in dataclasses.fields(cls) if f.init]
    for name in part.options:
        if name not in known:
            raise KinemaError(f"the technique {part.name!r} has no field {name!r}; it has {', '.join(known)}")
    # JSON knows lists only; fields of techniques are tuples, because they are frozen.
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in part.options.items()}
    _check_kinds(part.name, cls, options)
    return cls(**options)


def _check_kinds(name: str, cls: type[Technique], options: Mapping[str, Any]) -> None:
    """Techniques check ranges; that a number is a number is checked here, as far as the annotations are readable."""
    try:
        kinds = get_type_hints(cls)
        readers = {field: TypeAdapter(kinds[field]) for field in options}
    except (NameError, PydanticUserError):
        return
    for field, value in options.items():
        try:
            readers[field].validate_python(value, strict=True)
        except ValidationError:
            raise KinemaError(f"{field} of {name} is {value!r}; use {_words(kinds[field])}") from None
        if not all(math.isfinite(number) for number in np.ravel(value) if isinstance(number, float)):
            raise KinemaError(f"{field} of {name} is {value!r}; use finite numbers")


def _words(kind: Any) -> str:
    """What a field of this kind wants, in plain words."""
    known = {int: "a whole number", float: "a number", str: "a text"}
    if get_origin(kind) is not tuple:
        return known.get(kind, str(kind))
    items = get_args(kind)
    one = known.get(items[0], str(items[0])).split()[-1]
    count = "" if Ellipsis in items else f"{len(items)} "
    return f"a list of {count}{one}s in brackets" + (', each in "double quotes"' if one == "text" else "")


def _trained(technique: Technique) -> TypeGuard[Adapter]:
    from kinema.core.adapter import Adapter

    return isinstance(technique, Adapter)


def _steered(request: Request, techniques: list[Technique], backbone: Backbone) -> list[Technique]:
    """Gives the camera of a request to the adapter that follows it: one that is named, or the first the model has.

    Raises: KinemaError where there is none.
    """
    if request.camera is None:
        return techniques
    following = [i for i, t in enumerate(techniques) if hasattr(t, "camera")]
    told_already = {getattr(techniques[i], "camera", "static") for i in following} - {"static", request.camera}
    if told_already:
        raise KinemaError(f"camera is {request.camera!r}, and a technique's {min(told_already)!r}; say one of them")
    if following:
        told: Any = {"camera": request.camera}
        return [dataclasses.replace(t, **told) if i in following else t for i, t in enumerate(techniques)]
    from kinema.camera.steered import default

    return [*techniques, default(request.camera, backbone)]


def _guided(request: Request, techniques: list[Technique], backbone: Backbone) -> list[Technique]:
    """Adds classifier-free guidance at the request's weight, and those of adapters, unless a technique owns it already.

    A model that is told its guidance reads the weight from the request; then a technique may own a second one.
    """
    trained = [t for t in techniques if _trained(t) and t.weight]
    weights = {name: weight for t in trained for name, weight in t.weights().items()}
    joint = [condition for t in trained for condition in t.jointly()]
    owner = next((t for t in techniques if t.overrides("guide")), None)
    if owner is not None:
        if request.guidance_scale is not None and not backbone.defaults.embedded_guidance:
            raise KinemaError(f"guidance_scale is given and {owner.name} owns the guidance; set its own fields instead")
        if weights:
            told = " and ".join(f"{name} the weight {weight:g}" for name, weight in weights.items())
            raise KinemaError(
                f"{owner.name} owns the guidance, where {told} is asked for; leave {owner.name} out, or that "
                "weight at 1"
            )
        return techniques
    from kinema.guidance.cfg import plain_guidance
    from kinema.guidance.multi_cfg import joined

    return [*techniques, *joined(plain_guidance(backbone.defaults, request.guidance_scale), weights, joint)]


def _check_negative(request: Request, techniques: list[Technique], backbone: Backbone) -> None:
    """A negative prompt is read by guidance only, and is never left out without a word."""
    reads = any("text" in left for t in techniques if t.overrides("guide") for left in t.dropped().values())
    if not request.negative_prompt or reads or "text" not in backbone.droppable:
        return  # a model that reads no words says so itself
    if any(t.overrides("guide") for t in techniques):
        how = "the guidance of this request does not read it; leave it out"
    elif backbone.defaults.embedded_guidance:
        how = f"model {backbone.name!r} does not read it by itself; add the technique 'cfg', or leave it out"
    else:
        how = "without guidance nothing reads it; set guidance_scale to another value than 1, or leave it out"
    raise KinemaError(f"negative_prompt is given, and {how}")
