"""Stage 2 of `mini`: a text encoder and a Wan transformer learn to make latents from captions.

Every micro-batch has one length (a whole clip, a shorter one, or an image: the first latent frames of cached
clips) and is either without given frames, one time for the whole clip, or has clean ones and a time for each
frame (text to video and image to video in one model). Captions are drawn anew each time a clip is seen.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn
from transformers import UMT5EncoderModel

from kinema.backbones.compiling import has_compiler
from kinema.models.text import build_text_encoder, build_tokenizer, encode_text, tokenize
from kinema.training.attention import write_out_softmax
from kinema.training.export import export_pipeline
from kinema.training.latents import CacheSettings, Filler, LatentCache
from kinema.training.lessons import Lesson, Timetable, check_order
from kinema.training.preview import contact_sheet, generate
from kinema.training.reading import ReadingSettings, learn_to_read
from kinema.training.rectified_flow import (
    FLOW,
    bucket_losses,
    clean_frames,
    frame_times,
    sample_times,
    token_timesteps,
    velocity_loss,
)
from kinema.training.trainer import TrainerSettings
from kinema.world.spec import SceneSpec

REFRESH = 25  # micro-batches between looks for new shards


@dataclass(frozen=True, kw_only=True)
class TransformerSettings:
    """Size of the `WanTransformer3DModel`; its width is num_attention_heads * attention_head_dim."""

    num_layers: int = 8
    num_attention_heads: int = 4
    attention_head_dim: int = 64  # a multiple of 2; rotary positions split it into frame, row and column
    ffn_dim: int = 768
    freq_dim: int = 128  # sines and cosines that a time is written in
    rope_max_seq_len: int = 64  # longest side of the token grid
    gradient_checkpointing: bool = False  # blocks are computed twice and kept once: pays on a GPU with large batches
    plain_attention: bool = False  # the softmax written out: pays on a CPU with few tokens


@dataclass(frozen=True, kw_only=True)
class TextSettings:
    """Size of the text encoder, and what its words are counted in."""

    d_model: int = 128
    d_ff: int = 256
    num_layers: int = 3
    num_heads: int = 4
    max_tokens: int = 48
    captions: int = 20_000  # captions the tokenizer takes its words from
    min_count: int = 2  # a word seen less often is spelled with pieces


@dataclass(frozen=True, kw_only=True)
class PreviewSettings:
    """The sample sheets drawn during the training."""

    prompts: tuple[str, ...] = (
        "a red ball rolls to the left on the grass",
        "a small blue cube slides to the right on the snow at night",
        "a yellow cone grows on the sand while the camera zooms in",
        "a purple ring bounces on the stone, then rolls away from the camera",
        "a green cylinder jumps on the wood at sunset while the camera pans left",
        "a large white ball falls into the water, then rolls to the right",
    )
    steps: int = 20
    guidance_scale: float = 4.0
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class TextToVideoSettings:
    """Section `stage2` of a recipe."""

    trainer: TrainerSettings
    transformer: TransformerSettings = field(default_factory=TransformerSettings)
    text: TextSettings = field(default_factory=TextSettings)
    reading: ReadingSettings = field(default_factory=ReadingSettings)
    cache: CacheSettings = field(default_factory=CacheSettings)
    preview: PreviewSettings = field(default_factory=PreviewSettings)
    time_shift: float = 2.0  # of the logit-normal training times; above 1 is more noise
    image_share: float = 0.1  # share of micro-batches of single frames, 0..1
    short_share: float = 0.1  # share of micro-batches shorter than a clip and longer than an image, 0..1
    given_share: float = 0.3  # share of the other micro-batches, not images, with clean frames, 0..1
    caption_dropout: float = 0.1  # share of clips that see the empty prompt, 0..1
    dense_share: float = 0.25  # share of captions in the dense style, 0..1
    strange_share: float = 0.05  # share of captions with a word that means nothing, to learn to read past it, 0..1
    flow_shift: float = 3.0  # of the scheduler saved with the model
    lessons: tuple[Lesson, ...] = ()  # easier clips first; none: all clips from the start
    compile: Literal["auto", "always", "never"] = "never"  # torch.compile; auto: where a compiler is found
    start_from: str | None = None  # embedded model or model folder whose weights, sizes and words it begins with

    def __post_init__(self) -> None:
        for name in ("image_share", "short_share", "given_share", "caption_dropout", "dense_share", "strange_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}; use 0 to 1")
        if self.image_share + self.short_share > 1:
            raise ValueError("image_share and short_share together are above 1; use less")
        if min(self.time_shift, self.flow_shift) <= 0:
            raise ValueError("time_shift and flow_shift must be above 0")
        check_order(self.lessons)


# -- building ----------------------------------------------------------------------------------------------------


def build_transformer(settings: TransformerSettings, channels: int, text_dim: int, seed: int) -> nn.Module:
    """A fresh `WanTransformer3DModel` for latents of `channels`; the weights come from `seed` alone.

    Xavier-uniform matrices and zero biases as in Wan's own code; the gates' modulation and the output start at
    zero, so that every block begins as the identity (adaLN-Zero; "Scalable Diffusion Models with Transformers",
    Peebles and Xie, 2022, arXiv:2212.09748). Cross attention has no gate in Wan; its output matrix starts at zero.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        wan: Any = WanTransformer3DModel  # diffusers is not typed
        model: nn.Module = wan(
            patch_size=(1, 2, 2),
            num_attention_heads=settings.num_attention_heads,
            attention_head_dim=settings.attention_head_dim,
            in_channels=channels,
            out_channels=channels,
            text_dim=text_dim,
            freq_dim=settings.freq_dim,
            ffn_dim=settings.ffn_dim,
            num_layers=settings.num_layers,
            cross_attn_norm=True,
            qk_norm="rms_norm_across_heads",
            rope_max_seq_len=settings.rope_max_seq_len,
        )
        with torch.no_grad():
            initialise(model)
        if settings.gradient_checkpointing:
            wan.enable_gradient_checkpointing(model)
    return model


def initialise(model: Any) -> None:
    """The starting values that `build_transformer` describes, drawn from the global random state."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv3d):
            nn.init.xavier_uniform_(module.weight.flatten(1))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    embedder = model.condition_embedder
    nn.init.normal_(embedder.time_embedder.linear_1.weight, std=0.02)
    nn.init.normal_(embedder.time_embedder.linear_2.weight, std=0.02)
    for zero in (embedder.time_proj.weight, model.proj_out.weight, model.scale_shift_table):
        nn.init.zeros_(zero)
    for block in model.blocks:
        nn.init.zeros_(block.scale_shift_table)
        nn.init.zeros_(block.attn2.to_out[0].weight)


def build_parts(settings: TextToVideoSettings, channels: int, words: int) -> tuple[nn.Module, nn.Module]:
    """A fresh transformer and a fresh text encoder, from the training's seed."""
    seed, text = settings.trainer.seed, settings.text
    encoder = build_text_encoder(
        words, d_model=text.d_model, d_ff=text.d_ff, num_layers=text.num_layers, num_heads=text.num_heads, seed=seed
    )
    return build_transformer(settings.transformer, channels, text.d_model, seed + 1), encoder


def load_parts(folder: Path) -> tuple[nn.Module, nn.Module]:
    """Transformer and text encoder of a model folder, in float32."""
    loaders: tuple[Any, Any] = (WanTransformer3DModel, UMT5EncoderModel)  # diffusers is not typed
    transformer, encoder = (
        kind.from_pretrained(folder / name, dtype=torch.float32, use_safetensors=True)
        for kind, name in zip(loaders, ("transformer", "text_encoder"), strict=True)
    )
    return transformer, encoder


def model_folder(name: str) -> Path:
    """The folder of an embedded model, or the folder given. Raises: ValueError when there is no model in it."""
    from kinema.backbones.load import embedded

    folder = embedded().get(name, Path(name))
    if not (folder / "model_index.json").is_file():
        raise ValueError(f"start_from is {name!r}; use an embedded model ({', '.join(embedded())}) or a model folder")
    return folder


def draw_captions(
    scenes: Sequence[SceneSpec], dense_share: float, dropout: float, strange_share: float, generator: torch.Generator
) -> list[str]:
    """A caption for each scene, in fresh words; the empty one with probability `dropout`.

    With probability `strange_share` a word of random letters stands somewhere in it: the pieces that unknown
    words of a prompt are spelled with are then known to say nothing.
    """
    from kinema.world.caption import caption

    dense, empty, strange = torch.rand(3, len(scenes), generator=generator)
    seeds = torch.randint(2**31, (len(scenes),), generator=generator)
    captions = []
    for i, scene in enumerate(scenes):
        text = (
            "" if empty[i] < dropout else caption(scene, int(seeds[i]), "dense" if dense[i] < dense_share else "short")
        )
        if text and strange[i] < strange_share:
            text = insert_strange_word(text, generator)
        captions.append(text)
    return captions


def insert_strange_word(text: str, generator: torch.Generator) -> str:
    """`text` with a word of 3 to 9 random letters before one of its words."""
    words = text.split(" ")
    place = int(torch.randint(len(words), (1,), generator=generator))
    length = int(torch.randint(3, 10, (1,), generator=generator))
    letters = torch.randint(26, (length,), generator=generator).tolist()
    words.insert(place, "".join(string.ascii_lowercase[k] for k in letters))
    return " ".join(words)


def tokenizer_of_world(settings: TextSettings, curriculum: str, seed: int = 0) -> Any:
    """The tokenizer for captions of a curriculum: half of them short, half dense."""
    from kinema.world.sample import sample_spec

    generator = torch.Generator().manual_seed(seed)
    scenes = [sample_spec(i, curriculum) for i in range(min(settings.captions, 2000))]
    captions: list[str] = []
    while len(captions) < settings.captions:
        captions += draw_captions(scenes, 0.5, 0.0, 0.0, generator)
    return build_tokenizer(captions, min_count=settings.min_count, max_tokens=settings.max_tokens)


# -- the stage ---------------------------------------------------------------------------------------------------


class TextToVideo:
    """The stage a `Trainer` trains: see the head of this file.

    With a cache that still grows, which clips a step sees depends on how far it has grown; with a full one a
    resumed training equals an unbroken one.
    """

    def __init__(
        self,
        settings: TextToVideoSettings,
        cache: LatentCache,
        tokenizer: Any,
        autoencoder: Any,
        filler: Filler | None = None,
    ) -> None:
        self.settings, self.cache, self.tokenizer = settings, cache, tokenizer
        self.autoencoder, self.filler = autoencoder, filler
        self.shape = tuple(cache.shards[0].shape[1:]) if len(cache) else ()
        if not self.shape:
            raise ValueError("the latent cache is empty; fill it first")
        if settings.start_from is not None:
            self.transformer, self.text_encoder = load_parts(model_folder(settings.start_from))
        else:
            self.transformer, self.text_encoder = build_parts(settings, self.shape[0], len(tokenizer))
        self.timetable = Timetable(settings.lessons, cache, settings.cache.clips)
        if settings.transformer.plain_attention:
            write_out_softmax(self.transformer)
        self.compiled = settings.compile == "always" or (settings.compile == "auto" and has_compiler())
        if self.compiled:
            self.transformer.compile(dynamic=False)
        self.modules: Mapping[str, nn.Module] = {"transformer": self.transformer, "text_encoder": self.text_encoder}

    def learn_to_read(self, say: Callable[[str], None]) -> None:
        """Lets the text encoder read captions of the cache's scenes before the training; see `training.reading`."""
        s = self.settings
        scenes = [self.cache.scene(i) for i in range(len(self.cache))] if s.reading.steps else []

        def captions(batch: Sequence[SceneSpec], generator: torch.Generator) -> tuple[Tensor, Tensor]:
            prompts = draw_captions(batch, s.dense_share, 0.0, s.strange_share, generator)
            return tokenize(self.tokenizer, prompts, s.text.max_tokens)

        learn_to_read(self.text_encoder, scenes, captions, s.reading, s.trainer.seed, say)

    def batch(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Latents (B, C, T, H, W), token ids and mask (B, P), times (B,) and given frames (B, T) bool."""
        if step % REFRESH == 0:
            if self.filler is not None:
                self.filler.check()
            self.cache.refresh()
        s = self.settings
        size = s.trainer.batch_size
        frames = self._length(generator)
        indices = self.timetable.draw(step * size, size, generator)
        scenes = [self.cache.scene(i) for i in indices]
        prompts = draw_captions(scenes, s.dense_share, s.caption_dropout, s.strange_share, generator)
        ids, mask = tokenize(self.tokenizer, prompts, s.text.max_tokens)
        t = sample_times(size, s.time_shift, generator)
        given = torch.zeros(size, frames, dtype=torch.bool)
        if frames > 1 and float(torch.rand(1, generator=generator)) < s.given_share:
            given = clean_frames(size, frames, generator)
        return {"latents": self.cache.latents(indices, frames), "ids": ids, "mask": mask, "t": t, "given": given}

    def loss(self, batch: Mapping[str, Any], generator: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        """The velocity's mean squared error, and the same for each fifth of the time."""
        x0, times = batch["latents"], frame_times(batch["t"], batch["given"])
        noise = torch.randn(x0.shape, generator=generator, device=x0.device)
        text = encode_text(self.text_encoder, batch["ids"], batch["mask"])
        x = FLOW.add_noise(x0, noise, times)
        timesteps = token_timesteps(times, x.shape[3] // 2, x.shape[4] // 2)
        # Each length is compiled anew, which takes a minute: worth it for whole clips and images.
        often = x.shape[2] in (1, self.shape[1])
        transformer = self.transformer if often else self.transformer.forward
        velocity = transformer(x, timesteps, text, return_dict=False)[0]
        loss, clips = velocity_loss(velocity, x0, noise, times)
        return loss, dict(bucket_losses(clips.detach(), batch["t"]))

    def sheet(self, path: Path) -> None:
        """A row for each prompt of the preview settings; the model as it is now stays beside it, in preview/."""
        s = self.settings.preview
        model = self.export(path.parent / "preview", {"defaults": self.defaults(), "takes_last_image": True})
        device = next(self.transformer.parameters()).device
        contact_sheet(path, generate(model, s.prompts, s.seed, device), s.prompts)

    def defaults(self) -> dict[str, Any]:
        """What a request takes that does not say otherwise: the clips trained on, the preview's steps and weight."""
        _, frames, rows, columns = self.shape
        return {
            "num_frames": 4 * (frames - 1) + 1,
            "height": 16 * rows,
            "width": 16 * columns,
            "fps": 8,
            "num_inference_steps": self.settings.preview.steps,
            "guidance_scale": self.settings.preview.guidance_scale,
        }

    def export(self, folder: Path, card: Mapping[str, Any]) -> Path:
        """Write the model, with the weights as they are, as a folder in diffusers layout; gives its path."""
        return export_pipeline(
            folder,
            transformer=self.transformer,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            autoencoder=self.autoencoder,
            flow_shift=self.settings.flow_shift,
            card=card,
        )

    def _length(self, generator: torch.Generator) -> int:
        """Latent frames of a micro-batch: images, shorter clips, whole clips."""
        whole = self.shape[1]
        choice = float(torch.rand(1, generator=generator))
        if choice < self.settings.image_share or whole == 1:
            return 1
        if choice < self.settings.image_share + self.settings.short_share and whole > 2:
            return int(torch.randint(2, whole, (1,), generator=generator))
        return whole
