"""Request: the one description of a job. The command line, Python and anything that comes later all build it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from kinema.core import keep
from kinema.core.errors import KinemaError
from kinema.refusal import sentence
from kinema.timeline import Prompt, Timeline, given, plain

Offload = Literal["model", "group", "stream"]
Quantization = Literal["int8", "int4", "float8"]
ContextParallel = Literal["ulysses"]
MAX_SEED = 2**53 - 1  # the largest whole number that every JSON reader keeps exactly


class Part(BaseModel):
    """A technique by its registered name, with values for its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, description="registered name of the technique, for example 'cfg'")
    options: dict[str, Any] = Field(default_factory=dict, description="values for its fields")

    @classmethod
    def parse(cls, text: str) -> Part:
        """NAME or NAME:field=value,field=value; values as in JSON, a text without quotes. Raises: KinemaError."""
        name, colon, tail = text.partition(":")
        options: dict[str, Any] = {}
        for pair in re.split(r",(?![^\[]*\])", tail) if colon else []:
            field, _, value = (part.strip() for part in pair.partition("="))
            if not field or not value:
                raise KinemaError(f"{pair!r} in technique {text!r} is no field=value; write NAME:field=value")
            if field in options:
                raise KinemaError(f"{field} is given twice in technique {text!r}; give it once")
            try:
                options[field] = json.loads(value)
            except ValueError:
                options[field] = value
        if not name.strip():
            raise KinemaError(f"technique {text!r} has no name; write NAME or NAME:field=value")
        return cls(name=name.strip(), options=options)


class Lora(BaseModel):
    """A LoRA file and how strongly it acts."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    path: str = Field(min_length=1, description="safetensors file, folder that holds one, or hub id")
    weight: float = Field(1.0, ge=-100, le=100, description="how strongly it acts, no unit; 0 is not at all")
    expert: Literal["high", "low"] | None = Field(
        None, description="for models of two networks: 'high' or 'low' noise only; None is both"
    )

    @classmethod
    def parse(cls, text: str) -> Lora:
        """PATH, PATH:weight, PATH:expert or PATH:weight:expert. Raises: KinemaError."""
        path = text
        tails: list[str] = []
        while ":" in re.sub(r"^[A-Za-z]:(?=[/\\])", "", path) and not os.path.exists(path):  # C:/... is a path, too
            path, _, tail = path.rpartition(":")
            if "/" in tail or tail.endswith(".safetensors"):  # the colon was a part of the path
                path = f"{path}:{tail}"
                break
            tails.insert(0, tail)
        found: dict[str, Any] = {}
        if tails and tails[-1] in ("high", "low"):
            found["expert"] = tails.pop()
        if tails:
            try:
                found["weight"] = float(":".join(tails))
            except ValueError:
                raise KinemaError(
                    f"the weight of LoRA {path!r} is {':'.join(tails)!r}; use a number, as in {path}:0.8"
                ) from None
        return cls.of({"path": path, **found})

    @classmethod
    def of(cls, value: Any) -> Lora:
        """From what a user may give: a text, a path, (path, weight), an object. Raises: KinemaError."""
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            return cls.parse(value)
        if hasattr(value, "__fspath__"):
            value = {"path": os.fspath(value)}
        if isinstance(value, tuple | list):
            names = ("path", "weight", "expert")
            if not 1 <= len(value) <= len(names):
                raise KinemaError(f"lora is {value!r}; use a path, or (path, weight)")
            value = dict(zip(names, value, strict=False))
            value["path"] = os.fspath(value["path"]) if hasattr(value["path"], "__fspath__") else value["path"]
        try:
            if isinstance(value, dict) and isinstance(value.get("weight"), bool | str):
                raise KinemaError(f"the weight of LoRA {value.get('path')!r} is {value['weight']!r}; use a number")
            return cls.model_validate(value)
        except ValidationError as error:
            raise KinemaError(f"lora: {sentence(error, cls)}") from None


class Placement(BaseModel):
    """Where a model's weights lie, and in which types, so that it runs on the machine at hand; see docs/memory.md.

    Raises: KinemaError, one sentence, for switches that do not go together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    offload: Offload | None = None
    quantization: Quantization | None = None
    text_quantization: Quantization | None = None
    layerwise_casting: bool = False
    vae_tiling: bool = False
    compile: bool = False
    context_parallel: ContextParallel | None = None

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise KinemaError(sentence(error, Placement)) from None

    @model_validator(mode="after")
    def _together(self) -> Placement:
        if self.quantization and self.layerwise_casting:
            raise ValueError("layerwise_casting and quantization both make the weights smaller; use one of them")
        smaller = ("quantization", "text_quantization", "layerwise_casting")
        other = next((name for name in smaller if getattr(self, name)), None)
        if self.offload == "stream" and other:
            raise ValueError(f"offload 'stream' reads the weights as they are in their files; leave {other} out")
        if self.offload == "stream" and self.compile:
            raise ValueError("offload 'stream' puts all blocks in one place, which compile cannot; use one of them")
        if self.context_parallel and (self.offload or self.layerwise_casting or self.compile):
            other = "offload" if self.offload else "layerwise_casting" if self.layerwise_casting else "compile"
            raise ValueError(f"context_parallel and {other} do not work together yet; leave one of them out")
        return self

    def switches(self) -> dict[str, Any]:
        """The switches as `kinema.load` takes them."""
        return self.model_dump()


def loras(value: Any) -> tuple[Lora, ...]:
    """One or several of what `Lora.of` takes; a list holds several, a tuple with a number in it is one.

    Raises: KinemaError.
    """
    if value is None:
        return ()
    pair = isinstance(value, tuple) and len(value) > 1 and isinstance(value[1], int | float)
    several = isinstance(value, list | tuple) and not pair
    return tuple(Lora.of(one) for one in (value if several else [value]))


class Request(BaseModel):
    """One video to make. A field that is None takes the model's own default.

    Raises: KinemaError (a ValueError), one sentence, for anything out of range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=False)

    prompt: str = Field("", max_length=20_000, description="what the video shows; empty for models that read no words")
    timeline: str | None = Field(
        None,
        max_length=100_000,
        description="what happens when, as in '0-3s: ... | 3-6s: ...'; prompt then says what all of it shares",
    )
    negative_prompt: str = Field("", max_length=20_000, description="what the video should not show")
    image: str | None = Field(None, min_length=1, description="first frame: path of a picture, or a data: address")
    last_image: str | None = Field(None, min_length=1, description="last frame: path of a picture, or a data: address")
    video: str | None = Field(
        None, min_length=1, description="clip of which frames are kept: path of a video or folder, or a data: address"
    )
    keep: str | None = Field(
        None,
        min_length=1,
        description="which frames of video stay, from 0 or from the end: '0:5', '-4:', '0:5,-4:'; None is all of it",
    )
    camera: str | None = Field(
        None, min_length=1, description="how the camera moves: 'orbit:40deg', 'pan left, then tilt up', or a .json file"
    )
    num_frames: int | None = Field(None, ge=1, le=100_000, description="length in frames; most models want 4k + 1")
    seconds: float | None = Field(
        None,
        ge=0.001,
        le=100_000,
        description="length in seconds in place of num_frames, rounded to what the model takes",
    )
    height: int | None = Field(None, ge=8, le=8192, description="rows, pixels")
    width: int | None = Field(None, ge=8, le=8192, description="columns, pixels")
    fps: float | None = Field(None, ge=0.001, le=240, description="frames per second of the video")
    num_inference_steps: int | None = Field(None, ge=1, le=1000, description="solver steps, count")
    guidance_scale: float | None = Field(None, ge=0, le=100, description="weight of the prompt, no unit; 1 is none")
    scheduler: str | None = Field(None, description="'euler', 'unipc', 'dpm++', ...; None is the model's own")
    flow_shift: float | Literal["auto"] | None = Field(
        None, description="above 1: more steps close to noise; 'auto' grows with the size; None is the model's own"
    )
    seed: int | None = Field(None, ge=0, le=MAX_SEED, description="start of the random numbers; None draws one")
    model: str = Field("mini", min_length=1, description="'mini', a folder in diffusers layout, or a hub id")
    device: str | None = Field(None, description="'cpu', 'cuda', 'cuda:1', 'mps'; None takes the fastest there is")
    dtype: str | None = Field(None, description="'float32', 'bfloat16' or 'float16'; None suits model and device")
    lora: tuple[Lora, ...] = Field((), description="LoRA files put into the model's networks")
    offload: Offload | None = Field(
        None, description="'model', 'group' or 'stream': weights come to the device when used; None keeps them there"
    )
    quantization: Quantization | None = Field(
        None, description="'int8', 'int4' or 'float8': weights of the transformers in fewer bits; None is as they are"
    )
    text_quantization: Quantization | None = Field(None, description="the same for the text encoders")
    layerwise_casting: bool = Field(False, description="weights kept in float8, computed in dtype")
    vae_tiling: bool = Field(False, description="decode in tiles that overlap: less memory")
    compile: bool = Field(False, description="compile the blocks of the transformers")
    context_parallel: ContextParallel | None = Field(
        None, description="'ulysses': the processes that torchrun started share the tokens of the video; None is one"
    )
    techniques: tuple[Part, ...] = Field((), description="techniques in order, the first is the outermost")

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise KinemaError(sentence(error, Request)) from None

    @field_validator("prompt")
    @classmethod
    def _prompt(cls, value: str) -> str:
        if value and not value.strip():
            raise ValueError("prompt is empty; say what the video shows")
        if value:
            Timeline.parse(value)
        return value

    @field_validator("timeline", mode="before")
    @classmethod
    def _timeline(cls, value: Any) -> Any:
        return value if value is None else str(given(value))

    @field_validator("image", "last_image", "video", "camera", mode="before")
    @classmethod
    def _path(cls, value: Any) -> Any:
        return str(value) if hasattr(value, "__fspath__") else value

    @field_validator("num_frames", "height", "width", "num_inference_steps", "seed", mode="before")
    @classmethod
    def _count(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError(f"{value!r} is not a number; use a whole number")
        return value

    @field_validator("flow_shift", mode="before")
    @classmethod
    def _flow_shift(cls, value: Any) -> Any:
        with contextlib.suppress(ValueError, TypeError):
            value = float(value) if not isinstance(value, bool) else value
        number = isinstance(value, float) and 0 < value <= 100
        if value not in (None, "auto") and not number:
            raise ValueError(f"flow_shift is {value!r}; use a number above 0, at most 100, or 'auto'")
        return value

    @field_validator("dtype")
    @classmethod
    def _dtype(cls, value: str | None) -> str | None:
        if value not in (None, "float32", "bfloat16", "float16"):
            raise ValueError(f"dtype is {value!r}; use float32, bfloat16 or float16")
        return value

    @field_validator("lora", mode="before")
    @classmethod
    def _lora(cls, value: Any) -> Any:
        return loras(value)

    @field_validator("techniques", mode="before")
    @classmethod
    def _techniques(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return tuple(Part.parse(item) if isinstance(item, str) else item for item in value)
        return value

    @model_validator(mode="after")
    def _when(self) -> Request:
        """What all events share is words, which stand ahead of each event's own."""
        if self.prompt and self.timeline is not None and says_events(self.prompt):
            raise ValueError("prompt and timeline both say what happens when; let prompt say what all events share")
        _ = self.events
        return self

    @model_validator(mode="after")
    def _length(self) -> Request:
        if self.seconds is not None and self.num_frames is not None:
            raise ValueError("seconds and num_frames are both given, and both say how long the video is; give one")
        if self.last_image is not None and self.num_frames == 1:
            raise ValueError("last_image needs a video of at least 2 frames, num_frames is 1")
        return self

    @model_validator(mode="after")
    def _keep(self) -> Request:
        if self.keep is not None:
            keep.check(self.keep)
        if self.keep is not None and self.video is None:
            raise ValueError("keep says which frames of video stay, and there is no video; give one")
        if self.video is not None and (self.image or self.last_image) is not None:
            raise ValueError("a video and a picture are both given; keep a frame of the video in place of the picture")
        return self

    @model_validator(mode="after")
    def _placement(self) -> Request:
        _ = self.placement  # switches that do not go together are refused
        return self

    @property
    def placement(self) -> Placement:
        """How its model is to be loaded."""
        return Placement(**{name: getattr(self, name) for name in Placement.model_fields})

    @property
    def events(self) -> Timeline | None:
        """What happens when, each event with what all of them share, and complete; None where nothing is said."""
        said = self._said
        return None if said is None else said.completed()

    @property
    def _said(self) -> Timeline | None:
        """The events as they are written, with what all of them share."""
        if self.timeline is not None:
            return Timeline.parse(self.timeline).sharing(self.prompt)
        return Timeline.parse(self.prompt) if self.prompt else None

    @property
    def asked(self) -> str:
        """What is asked for as one prompt, times included."""
        return self.prompt if self.timeline is None else str(self._said)

    @property
    def text(self) -> str:
        """What a network reads that has no sense of time: the prompt, or what its events share and then all of them."""
        if self.timeline is not None:
            return ", ".join(filter(None, (self.prompt.strip().rstrip(".,;"), plain(Timeline.parse(self.timeline)))))
        timed = self.prompt and Timeline.parse(self.prompt).timed
        return Prompt.parse(self.prompt).text if timed else self.prompt

    def changed(self, **changes: Any) -> Request:
        """A copy with some fields changed and everything checked again. Raises: KinemaError."""
        return Request(**{**self.model_dump(), **changes})

    def seeded(self) -> Request:
        """The same request with its seed drawn, when it has none."""
        return self if self.seed is not None else self.changed(seed=secrets.randbelow(2**32))


def says_events(prompt: str) -> bool:
    """Whether a prompt says what happens when by itself: several events, or times. Raises: KinemaError."""
    events = Timeline.parse(prompt)
    return len(events) > 1 or events.timed


def request_schema() -> dict[str, Any]:
    """JSON schema of a request: every field with its unit, range and default."""
    return Request.model_json_schema()
