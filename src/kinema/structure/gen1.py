"""Keep where things are in a clip, and give it another look by text or picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinema.core.adapter import Adapter, AdapterNetwork, ModelFace, Opened
from kinema.core.errors import KinemaError
from kinema.core.features import Inside
from kinema.core.registry import technique
from kinema.core.technique import Step
from kinema.layers.beside import Branch, BranchNetwork
from kinema.layers.branch import patches, waves
from kinema.layers.structure import KINDS, LEVELS, level_of

if TYPE_CHECKING:
    from kinema.backbones.protocol import Backbone
    from kinema.core.chunks import Chunk
    from kinema.core.run import Run
    from kinema.request import Request


class ContentPrior(nn.Module):
    """From a picture to what a text that tells its content would be: latents of a picture -> text tokens."""

    def __init__(self, inner: int, text: int, tokens: int, width: int, heads: int) -> None:
        """inner: channels of a patch of latents; text: of a text token; tokens: how many are made."""
        super().__init__()
        self.embed = nn.Linear(inner, width)
        self.asked = nn.Parameter(torch.randn(tokens, width) / width**0.5)
        self.look = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.tell = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, text))

    def forward(self, picture: Tensor) -> Tensor:
        """Patches (B, L, inner) -> (B, tokens, text); patches have no places, so that no layout is told."""
        seen = F.gelu(self.embed(picture))
        asked = self.asked.expand(len(picture), -1, -1)
        found, _ = self.look(asked, seen, seen, need_weights=False)
        out: Tensor = self.tell(self.norm(asked + found))
        return out


class Gen1Network(BranchNetwork):
    """A branch that sees the structure and is told its level, and what tells pictures in the place of a text."""

    def __init__(
        self, face: ModelFace, blocks: Sequence[int], width: int = 64, heads: int = 4, contents: int = 8
    ) -> None:
        """contents: text tokens that a picture is told in, where the model reads text."""
        super().__init__(face, blocks, face.channels, width, heads)
        self.level = nn.Linear(width, width)
        self.content = ContentPrior(face.channels * 4, face.text, contents, width, heads) if face.text else None

    @classmethod
    def sizes(cls, face: ModelFace) -> dict[str, Any]:
        return {"blocks": list(face.widths)}

    def begin(self, inside: Inside, given: Mapping[str, Tensor]) -> Branch:
        level = self.level(waves(10 * inside.of(given["level"]).float(), self.clock.width))
        return self.begun(inside, given["structure"], level)

    def told(self, picture: Tensor, length: int) -> Tensor:
        """Text tokens (B, length, text) that stand for pictures, latents (B, C, 1, H, W); zero behind the last."""
        assert self.content is not None
        tokens = self.content(patches(picture.float(), (1, 2, 2)))[:, :length]
        return F.pad(tokens, (0, 0, 0, length - tokens.shape[1]))


@technique("gen1", paper="arXiv:2302.03011", base="a latent UNet of Runway's", neutral=dict(weight=0.0))
@dataclass(frozen=True, kw_only=True)
class Gen1(Adapter):
    """h_i + W_i c_i behind every block, where c sees the noisy latents and the structure of a clip, coded as a video.

    The structure is depth, from which detail is taken away: how much is drawn at random in the training and told to
    the network, so that `fidelity` chooses it. Content is the prompt, or a picture, which a small network puts into the
    prompt's place: its tokens are in the space of the text tokens, so that one network reads both.
    A clip is as long as may be: every shot begins anew, and within one each pass is given the last frames of the one
    ahead of it where the model has learned that, and otherwise makes them once more.
    Guidance: u + scale (c - u) + (temporal_scale - 1) (1 - t) (u - v), with v what the model says of each latent frame
    alone, and 1 - t kinema's own, see `multi_cfg`; above 1 frames hang together more, below 1 less. Clips and single
    frames are learned from together.
    Paper: "Structure and Content-Guided Video Synthesis with Diffusion Models", 2023, arXiv:2302.03011.
    Departures: the paper trains the whole network, with the structure as more channels of its input; here the model
    is frozen and a branch beside it learns. Pictures are coded by the model's own autoencoder, without their places,
    and not by CLIP. The paper makes clips of 8 frames, and says nothing of longer ones. Where a latent frame stands
    for several frames, a single one of them is the "picture" of that term. Depth is the true one in the training on
    rendered clips, and otherwise seen by a network of kinema's own, where the paper has MiDaS. Edges, grey and flow
    are put where depth is: the training is on depth alone, and what they give is what the branch makes of them. At
    fidelity 0 the roughest masses are still told. Of a model that pools its text, the pooled text stays the prompt's.
    Shapes: structure (B, C, T, H, W), as the autoencoder codes it; level (B,), 0 (exact) to 1.
    Raises: KinemaError at start, without a clip, for one that cannot be read, or without weights for the model.
    """

    network: ClassVar[type[AdapterNetwork]] = Gen1Network
    condition: ClassVar[str] = "structure"
    files: ClassVar[tuple[str, ...]] = ("adapter", "source", "content")

    source: str = ""  # the clip: a video or a folder of pictures, stretched to the size of the run
    frames: int | None = None  # made in one pass; None is the length that the model was trained on
    overlap: int | None = None  # frames that a pass repeats, 1 and whole latent frames, or 0; None is what suits
    cuts: bool = True  # whether every shot of the clip begins anew
    as_source: bool = False  # size, rate and sound of the video are the clip's
    structure: str = "depth"  # what is kept of it: depth, edges, grey or flow
    depth: str = ""  # what sees depth: kinema's own network, or depth_anything@MODEL of transformers
    fidelity: float = 0.8  # how exactly it is kept, 1 exact to 0 free
    content: str | None = None  # a picture in the place of the prompt
    temporal_scale: float = 1.0  # weight of how frames hang together, 0 or more; 1 is none

    def weights(self) -> Mapping[str, float]:
        found = dict(super().weights())
        return found if 0 in (self.weight, self.temporal_scale - 1) else {**found, "time": self.temporal_scale}

    def chunks(self, backbone: Backbone, request: Request) -> Sequence[Chunk]:
        from kinema.layers.source import Source
        from kinema.structure.source import passes

        if self.weight == 0:
            return super().chunks(backbone, request)
        source = Source.open(self.source, f"source of {self.name}", self.cuts)
        return passes(backbone, request, source, self.frames, self.overlap, self.as_source)

    def given(self, run: Run) -> Mapping[str, Tensor]:
        from kinema.structure.source import content_latents, structure_latents

        if self.structure not in KINDS:
            raise KinemaError(f"structure of {self.name} is {self.structure!r}; use one of {', '.join(KINDS)}")
        if not 0 <= self.fidelity <= 1:
            raise KinemaError(f"fidelity of {self.name} is {self.fidelity:g}; use 0 (free) to 1 (exact)")
        if self.temporal_scale < 0:
            raise KinemaError(f"temporal_scale of {self.name} is {self.temporal_scale:g}; use 0 or more")
        if self.content is not None and "text" not in run.backbone.droppable:
            raise KinemaError(
                f"model {run.backbone.name!r} reads no text, where {self.name} puts pictures; leave content out"
            )
        level = level_of(self.fidelity)
        count = run.conditions.shape[0]
        latents = structure_latents(run, self.source, self.cuts, self.structure, self.depth, level)
        found = {"structure": latents.expand(count, -1, -1, -1, -1), "level": torch.full((count,), level / LEVELS)}
        if self.content is not None:
            found["picture"] = content_latents(run, self.content).expand(count, -1, -1, -1, -1)
        return found

    def reword(self, step: Step, text: Tensor, inside: Inside) -> Tensor:
        if self.weight == 0 or step.run is None:
            return text
        opened: Opened = step.run.state[self]
        if "picture" not in opened.given:
            return text
        network, given = opened.network, opened.given
        assert isinstance(network, Gen1Network)
        told = network.told(inside.of(given["picture"]), text.shape[1]).to(text.dtype)
        pictured = inside.keeps("text")
        if "pictured" in given:  # in training some clips are told in words
            pictured = pictured & inside.of(given["pictured"]).bool()
        return torch.where(pictured[:, None, None], told, text)
