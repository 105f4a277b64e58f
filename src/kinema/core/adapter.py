"""A trained part beside a frozen model: it sees features between the blocks and adds to them.

An **Adapter** is a Technique whose numbers come from an `AdapterNetwork`, which is read from a folder at `start`,
attaches through the hook `features` and leaves nothing behind:

    config.json            what it adapts (`ModelFace`) and the sizes of its network
    adapter.safetensors    its weights
    card.json              how it was trained and what it measured, for people

A model's own adapters lie in `adapters/NAME` of its folder.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from kinema.core.errors import KinemaError
from kinema.core.features import Inside, Place
from kinema.core.technique import Step, Technique

if TYPE_CHECKING:
    from kinema.backbones.protocol import Backbone
    from kinema.core.run import Run

FOLDER, CONFIG, WEIGHTS, CARD = "adapters", "config.json", "adapter.safetensors", "card.json"


@dataclass(frozen=True, kw_only=True)
class ModelFace:
    """What an adapter's network is built for; models with the same face can share an adapter."""

    channels: int  # of the latents
    patch: tuple[int, int, int]  # latent cells of a token: frames, rows, columns
    frames_per_latent: int
    widths: Mapping[int, int]  # block -> channels of its tokens
    text: int = 0  # channels of the text tokens that the network reads; 0 where it reads none

    @classmethod
    def of(cls, backbone: Backbone) -> ModelFace:
        """Raises: KinemaError for a model whose features cannot be seen."""
        if "features" not in backbone.hooks:
            raise KinemaError(f"model {backbone.name!r} does not show its features; it takes no adapters")
        seen = (s for s in backbone.sites if s.kind in ("self", "joint", "temporal", "spatial"))
        widths = {site.block: site.heads * site.head_dim for site in seen}
        return cls(
            channels=backbone.channels,
            patch=backbone.patch,
            frames_per_latent=backbone.frames_per_latent,
            widths=dict(sorted(widths.items())),
        )

    def to_dict(self) -> dict[str, Any]:
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelFace:
        widths = {int(block): int(width) for block, width in data["widths"].items()}
        return cls(**{**data, "patch": tuple(data["patch"]), "widths": widths})


class AdapterNetwork(nn.Module, ABC):
    """What an adapter learns. Its last layers begin as zero, so that the model begins as it was."""

    def __init__(self, face: ModelFace, blocks: tuple[int, ...]) -> None:
        """blocks: behind which it adds. Raises: ValueError for blocks that the model has not."""
        super().__init__()
        self.face, self.blocks = face, blocks
        unknown = [block for block in blocks if block not in face.widths]
        if unknown or not blocks:
            raise ValueError(f"blocks of an adapter are {blocks}; use some of 0 to {max(face.widths)}")

    @classmethod
    @abstractmethod
    def sizes(cls, face: ModelFace) -> dict[str, Any]:
        """What a fresh network takes beside the face, as JSON has it."""

    @abstractmethod
    def begin(self, inside: Inside, given: Mapping[str, Tensor]) -> Any:
        """What is computed once for a call, ahead of the first block; `given` is the run's, see `Inside.of`."""

    @abstractmethod
    def residual(self, seen: Any, place: Place, h: Tensor) -> Tensor:
        """What is added to features h (B', L, D) behind a block; `seen` is what `begin` gave."""


@dataclass(eq=False)
class Opened:
    """What an adapter keeps during a run."""

    network: AdapterNetwork
    given: Mapping[str, Tensor]  # its condition, each (B, ...)


@dataclass(frozen=True, kw_only=True)
class Adapter(Technique, ABC):
    """Base of all trained controls: h + weight * residual(h, condition) behind the blocks of its network.

    Raises: KinemaError at start, when there are no weights for the model, or they are for another one.
    """

    alike: ClassVar[bool] = True
    files: ClassVar[tuple[str, ...]] = ("adapter",)
    network: ClassVar[type[AdapterNetwork]]
    condition: ClassVar[str] = ""  # what a branch of the guidance may leave out

    weight: float = 1.0  # of what it adds, no unit; 0 leaves the model as it is
    guidance: float = 1.0  # weight of its condition in the guidance, no unit; 1 adds nothing to the text's
    joint: bool = False  # whether the text's guidance, if of the plain kind, leaves the condition out too: a call less
    text_share: float = 1.0  # of the text's own part where it is joint, 0 or more; 1 is as much, without a call
    adapter: str | None = field(default=None)  # folder of its weights; None is the one that comes with the model

    def __init_subclass__(cls, **named: Any) -> None:
        super().__init_subclass__(**named)
        cls.provides = frozenset({cls.condition})

    def weights(self) -> Mapping[str, float]:
        """Weights in the guidance other than 1, by the condition that a branch leaves out."""
        return {} if 0 in (self.weight, self.guidance - 1) else {self.condition: self.guidance}

    def jointly(self) -> list[str]:
        """Its condition, with a share of the text other than 1, if it is guided with the text.

        Below a guidance of 1 it is cut out, and the text is not. Raises: KinemaError for numbers that cannot be.
        """
        self._check_numbers()
        if not self.joint or self.guidance < 1:
            return []
        return [self.condition if self.text_share == 1 else f"{self.condition}:{self.text_share!r}"]

    @abstractmethod
    def given(self, run: Run) -> Mapping[str, Tensor]:
        """The condition of a run as its network takes it, each (B, ...). Raises: KinemaError for bad values."""

    def _check_numbers(self) -> None:
        for name in ("weight", "guidance", "text_share"):
            if not math.isfinite(getattr(self, name)):
                raise KinemaError(f"{name} of {self.name} is {getattr(self, name)}; use a finite number")
        if self.text_share < 0:
            raise KinemaError(f"text_share of {self.name} is {self.text_share:g}; use 0 or more")

    def start(self, run: Run) -> None:
        self._check_numbers()
        if self.weight == 0:  # nothing is read, and nothing is added
            return
        network = read_adapter(self, run.backbone)
        given = {name: u.to(run.backbone.device) for name, u in self.given(run).items()}
        run.state[self] = Opened(network, given)

    def features(self, step: Step, place: Place, h: Tensor, inside: Inside) -> Tensor:
        if self.weight == 0 or step.run is None:
            return h
        opened: Opened = step.run.state[self]
        if place.block not in opened.network.blocks:
            return h
        if id(self) not in inside.memo:
            inside.memo[id(self)] = opened.network.begin(inside, opened.given)
        added = opened.network.residual(inside.memo[id(self)], place, h)
        kept = inside.keeps(self.condition).to(h.dtype)[:, None, None]
        return h + self.weight * kept * added.to(h.dtype)


def comes_with(adapter: Adapter, backbone: Backbone) -> bool:
    """Whether a model's folder holds weights for an adapter."""
    return (backbone.folder.path / FOLDER / adapter.name / WEIGHTS).is_file()


def folder_of(adapter: Adapter, backbone: Backbone) -> Path:
    """Where the weights of an adapter lie. Raises: KinemaError when there are none."""
    folder = backbone.folder.path / FOLDER / adapter.name if adapter.adapter is None else Path(adapter.adapter)
    if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file():
        return folder
    if adapter.adapter is not None:
        raise KinemaError(f"there is no adapter in {folder}; give the folder that `kinema train adapter` wrote")
    raise KinemaError(
        f"model {backbone.name!r} comes with no adapter {adapter.name!r}; train one with `kinema train adapter "
        f"{adapter.name} --model {backbone.name}` and name its folder, {adapter.name}:adapter=FOLDER"
    )


def read_adapter(adapter: Adapter, backbone: Backbone) -> AdapterNetwork:
    """The network of an adapter, frozen, on the model's device in float32.

    Raises: KinemaError when its files are missing or damaged, or it is for another model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = folder_of(adapter, backbone)
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        kind, face, sizes = config["adapter"], ModelFace.from_dict(config["face"]), config["network"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise KinemaError(f"{folder / CONFIG} is damaged: {error}") from error
    if kind != adapter.name:
        raise KinemaError(f"{folder} holds an adapter {kind!r}, and {adapter.name!r} is asked for")
    if replace(face, text=0) != ModelFace.of(backbone):
        raise KinemaError(f"the adapter in {folder} was made for another kind of model than {backbone.name!r}")
    try:
        network = adapter.network(face, **sizes)
        network.load_state_dict(load_file(folder / WEIGHTS))
    except (ValueError, TypeError, RuntimeError, SafetensorError) as error:
        what = "is damaged, or of another version of kinema"
        raise KinemaError(f"the adapter in {folder} {what}: {str(error).splitlines()[0]}") from error
    return network.to(backbone.device, torch.float32).eval().requires_grad_(False)


def write_adapter(
    folder: Path,
    name: str,
    network: AdapterNetwork,
    sizes: Mapping[str, Any],
    card: Mapping[str, Any],
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """Writes the files of an adapter into a folder that is there. sizes: those that `network` takes."""
    from safetensors.torch import save

    tensors = {key: u.detach().to("cpu", dtype).contiguous() for key, u in network.state_dict().items()}
    config = {"adapter": name, "face": network.face.to_dict(), "network": dict(sizes)}
    (folder / WEIGHTS).write_bytes(save(tensors))
    for file, content in ((CONFIG, config), (CARD, card)):
        (folder / file).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
