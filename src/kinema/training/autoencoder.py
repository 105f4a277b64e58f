"""Stage 1: the causal autoencoder, on clips of the world rendered while it trains.

Loss on frames in -1..1, with d = decoded - true and every mean over all values:

    mean sqrt(d^2 + e^2) - e                 Charbonnier, nearly quadratic for errors below e
    + edges  * mean |grad_x d| + |grad_y d|  sharp outlines
    + motion * mean |d_(t+1) - d_t|          no flicker
    + kl     * mean KL(q(z|x) || N(0, 1))    latents of a common scale, without holes

The decoder sees latents sampled from the posterior, so that a diffusion model's small errors stay small.
"Auto-Encoding Variational Bayes", Kingma and Welling, 2013, arXiv:1312.6114.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from kinema.core.footage import as_video
from kinema.files import make_folder, replacing
from kinema.metrics.control.psnr import decibels
from kinema.models.autoencoder import GROUP, AutoencoderKLKinema, cells
from kinema.training.trainer import Report, Trainer, TrainerSettings
from kinema.world.curricula import Curriculum
from kinema.world.motion import simulate
from kinema.world.render import render_frames
from kinema.world.sample import Split, sample_spec
from kinema.world.vocabulary import ACTIONS, MATERIALS

HELD_OUT_SEEDS = 1_000_000_000  # seeds from here on are never trained on

# Everything that the autoencoder has to code beyond the curriculum "first": all materials, up to three objects,
# all that solids can do. Figures, pictures and letters wait for a longer training.
SOLIDS = Curriculum(
    materials=MATERIALS,
    actions=tuple(action for action in ACTIONS if action not in ("walk", "wave")),
    object_weights=(0.5, 0.35, 0.15),
    event_weights=(0.45, 0.35, 0.13, 0.07),
)


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Sizes of `AutoencoderKLKinema`."""

    z_dim: int = 32
    widths: tuple[int, int, int] = (64, 112, 160)
    encoder_depths: tuple[int, int, int] | None = None  # None: the encoder is linear and is not trained further
    decoder_depths: tuple[int, int, int] = (3, 2, 1)


@dataclass(frozen=True, kw_only=True)
class ClipSettings:
    """What the autoencoder sees: mostly crops, which are quick, and now and then whole clips."""

    first_share: float = 0.5  # share of batches from the curriculum "first", the others are from `SOLIDS`
    crop: int = 64  # pixels a side
    crop_frames: tuple[int, ...] = (17, 17, 9, 1)  # lengths of the crops, one drawn for each batch
    crops: int = 3  # crops of each rendered clip
    whole_every: int = 4  # each such step is on whole clips
    whole_batch: int = 3  # whole clips of a batch


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """Weights of the loss, no unit."""

    charbonnier: float = 0.03  # e, in units of -1..1
    edges: float = 0.25
    motion: float = 0.25
    kl: float = 2e-5


@dataclass(frozen=True, kw_only=True)
class AutoencoderRecipe:
    """Section `stage1` of a recipe."""

    model: ModelSettings = field(default_factory=ModelSettings)
    clips: ClipSettings = field(default_factory=ClipSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    trainer: TrainerSettings = field(default_factory=lambda: TrainerSettings(seconds=1500.0))
    start_clips: int = 128  # clips whose principal components the linear part starts from
    statistics_clips: int = 500  # clips on which latents_mean and latents_std are measured


def render(seeds: Sequence[int], curriculum: Curriculum | str, split: Split = "train") -> Tensor:
    """Frames (B, 3, T, H, W) in -1..1 of the clips of these seeds."""
    state, _ = simulate([sample_spec(seed, curriculum, split) for seed in seeds])
    return as_video(render_frames(state))


class AutoencoderStage:
    """Stage 1 for the `Trainer`."""

    def __init__(self, recipe: AutoencoderRecipe) -> None:
        self.recipe = recipe
        m = recipe.model
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.trainer.seed)
            self.vae = AutoencoderKLKinema(
                z_dim=m.z_dim,
                widths=m.widths,
                encoder_depths=m.encoder_depths,
                decoder_depths=m.decoder_depths,
            )
        start = recipe.start_clips // 2
        clips = torch.cat((render(range(start), "first"), render(range(start), SOLIDS)))
        start_from_principal_components(self.vae, clips, recipe.trainer.seed)
        # At a rate that suits the convolutions, thousands of equal gradients would break the linear maps at once.
        self.vae.encoder.shortcut.requires_grad_(False)
        self.vae.decoder.shortcut.requires_grad_(False)
        if m.encoder_depths is None:  # its latents are settled now, and may be cached while the decoder learns
            measure_latents(self.vae, recipe.statistics_clips)
        self.vae.to(memory_format=torch.channels_last)
        self.modules: Mapping[str, nn.Module] = {"vae": self.vae}

    def batch(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Whole clips each `whole_every`-th step, else crops in space and time of `batch_size` / `crops` clips."""
        c = self.recipe.clips
        whole = step % c.whole_every == 0
        count = c.whole_batch if whole else max(1, self.recipe.trainer.batch_size // c.crops)
        seeds = torch.randint(HELD_OUT_SEEDS, (count,), generator=generator).tolist()
        easy = bool(torch.rand((), generator=generator) < c.first_share)
        frames = render(seeds, "first" if easy else SOLIDS)
        if whole:
            return {"frames": frames}
        length = c.crop_frames[int(torch.randint(len(c.crop_frames), (), generator=generator))]
        crops = []
        for clip in frames:
            for _ in range(c.crops):
                ends = (clip.shape[1] - length, clip.shape[2] - c.crop, clip.shape[3] - c.crop)
                t, y, x = (int(torch.randint(end + 1, (), generator=generator)) for end in ends)
                crops.append(clip[:, t : t + length, y : y + c.crop, x : x + c.crop])
        return {"frames": torch.stack(crops)}

    def loss(self, batch: Mapping[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        x, w = batch["frames"], self.recipe.loss
        posterior = self.vae.encode(x).latent_dist
        d = self.vae.decode(posterior.sample(generator)).sample.float() - x
        e = w.charbonnier
        pixel = (d.square() + e * e).sqrt().mean() - e
        edges = d.diff(dim=3).abs().mean() + d.diff(dim=4).abs().mean()
        motion = d.diff(dim=2).abs().mean() if d.shape[2] > 1 else d.new_zeros(())
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        # KL(N(m, s^2) || N(0, 1)) = (m^2 + s^2 - 1 - log s^2) / 2
        kl = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean()
        loss = pixel + w.edges * edges + w.motion * motion + w.kl * kl
        numbers = {"pixel": pixel, "edges": edges, "motion": motion, "kl": kl}
        numbers["psnr"] = decibels(d, torch.zeros_like(d), span=2).mean()
        return loss, {**numbers, "noise": (0.5 * logvar).exp().mean()}

    @torch.no_grad()
    def sheet(self, path: Path) -> None:
        """Four held-out clips, four frames each; true above, decoded below."""
        seeds = [HELD_OUT_SEEDS + i for i in range(4)]
        x = torch.cat((render(seeds[:2], "first"), render(seeds[2:], SOLIDS)))
        y = self.vae(x.to(self.vae.device)).sample.cpu()
        rows = torch.stack((x, y), 1).flatten(0, 1)[:, :, ::8]  # (8, 3, 4, H, W)
        picture = rows.permute(0, 3, 2, 4, 1).flatten(2, 3).flatten(0, 1)  # (8 H, 4 W, 3)
        Image.fromarray(((picture + 1) * 127.5).round().clamp(0, 255).byte().numpy()).save(path)


@torch.no_grad()
def start_from_principal_components(vae: AutoencoderKLKinema, frames: Tensor, seed: int = 0) -> None:
    """Set the linear shortcuts of encoder and decoder to the principal components of cells of pixels.

    frames (B, 3, 1 + 4k, H, W) in -1..1. With P the first z_dim components and mu the mean of the cells x of 4
    frames, and s their standard deviations: z = P^T (x - mu) / g and x = mu + P (g z), with g = s / d and
    d = (s / s_1)^0.35, at least 0.3: later components stay smaller than the first ones, so that a diffusion model
    settles the coarse before the fine. Frame 0 has components of its own, rotated (orthogonal Procrustes) so that
    its latents are close to those of a group of four such frames.
    """
    z_dim = int(vae.config["z_dim"])
    first, groups = (part.flatten(0, -2) for part in cells(frames))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _, singular, p = torch.pca_lowrank(groups, q=z_dim + 16, niter=4)
        _, _, p_first = torch.pca_lowrank(first, q=z_dim + 16, niter=4)
    p, p_first = p[:, :z_dim], p_first[:, :z_dim]
    s = singular[:z_dim] / len(groups) ** 0.5
    g = s / (s / s[0]).pow(0.35).clamp_min(0.3)
    _set_linear(vae.encoder.shortcut.groups, vae.decoder.shortcut.groups, groups.mean(0), p, g)

    own = (first - first.mean(0)) @ p_first
    still = first.repeat(1, GROUP) @ p
    u, _, vt = torch.linalg.svd(own.T @ (still - still.mean(0)))
    # Four equal frames have twice the length of one.
    half = g / GROUP**0.5
    _set_linear(vae.encoder.shortcut.first, vae.decoder.shortcut.first, first.mean(0), p_first @ (u @ vt), half)


def _set_linear(encode: nn.Linear, decode: nn.Linear, mean: Tensor, basis: Tensor, scale: Tensor) -> None:
    """z = basis^T (x - mean) / scale and x = mean + basis (scale z), for an orthonormal basis (P, z_dim).

    The encoder is rounded to bfloat16, in which it is shipped, so that cached latents are those of the shipped one.
    """
    encode.weight.copy_((basis / scale).T.bfloat16())
    encode.bias.copy_((-(mean @ basis) / scale).bfloat16())
    decode.weight.copy_(basis * scale)
    decode.bias.copy_(mean)


@torch.no_grad()
def evaluate(
    vae: AutoencoderKLKinema, clips: int = 200, curriculum: Curriculum | str = "first", batch: int = 8
) -> dict[str, float]:
    """PSNR in dB over held-out clips, "held_out" combinations included: mean, smallest, and share of 30 dB or more."""
    values = []
    for first in range(0, clips, batch):
        seeds = range(HELD_OUT_SEEDS + first, HELD_OUT_SEEDS + min(clips, first + batch))
        x = render(list(seeds), curriculum, "all").to(vae.device)
        values.append(decibels(vae(x.to(vae.dtype)).sample, x, span=2).cpu())
    all_values = torch.cat(values)
    return {
        "clips": clips,
        "psnr": float(all_values.mean()),
        "psnr_min": float(all_values.min()),
        "share_30db": float((all_values >= 30).float().mean()),
    }


@torch.no_grad()
def measure_latents(
    vae: AutoencoderKLKinema, clips: int, curriculum: Curriculum | str = "first", batch: int = 8
) -> None:
    """Measure the latents over training clips, into the config: a mean for each channel, one deviation for all.

    One scale for all channels keeps their order of importance (see `start_from_principal_components`).
    """
    count, total, squares = 0, torch.zeros(vae.config["z_dim"]).double(), torch.zeros(vae.config["z_dim"]).double()
    for first in range(0, clips, batch):
        x = render(range(first, min(clips, first + batch)), curriculum).to(vae.device, vae.dtype)
        posterior = vae.encode(x, return_dict=False)[0]
        z = posterior.mode().double().cpu().transpose(0, 1).flatten(1)  # (z_dim, values)
        count, total, squares = count + z.shape[1], total + z.sum(1), squares + z.square().sum(1)
    mean = total / count
    std = (squares / count - mean.square()).mean().sqrt().expand(len(mean))
    vae.register_to_config(  # type: ignore[no-untyped-call]
        latents_mean=[round(v, 5) for v in mean.tolist()], latents_std=[round(v, 5) for v in std.tolist()]
    )


def train_autoencoder(
    settings: AutoencoderRecipe, folder: Path, out: Path, device: str = "cpu", say: Callable[[str], None] = print
) -> Report:
    """Train (or resume) stage 1 in `folder`; the averaged weights, with their statistics, are written to `out`."""
    stage = AutoencoderStage(settings)

    def write(report: Report) -> None:
        scored = out / "scores.json"
        if scored.is_file() and json.loads(scored.read_text(encoding="utf-8")).get("step") == report.step:
            return  # it was finished and measured before
        stage.vae.eval()
        measure_latents(stage.vae, settings.statistics_clips)
        scores = {**evaluate(stage.vae), "step": report.step}
        make_folder(out.parent)
        with replacing(out) as temporary:
            stage.vae.save_pretrained(temporary)
            (temporary / scored.name).write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
        say(f"autoencoder: {scores['psnr']:.2f} dB on {scores['clips']} held-out clips")

    return Trainer(stage, settings.trainer, folder, device).run_and_write(write)
