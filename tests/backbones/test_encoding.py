"""Videos as latents: the inverse of `pixels`, for every family."""

import pytest
import torch

from backbones.families import cases
from kinema.backbones.load import load
from kinema.core.errors import KinemaError

CASES = cases()
# One for each autoencoder and way of laying latents out.
NAMES = [
    "wan 2.1 t2v",
    "wan 2.2 ti2v",
    "skyreels v2",
    "cogvideox 5b",
    "cogvideox 1.5",
    "hunyuan t2v",
    "hunyuan i2v, latents beside",
    "hunyuan 1.5 t2v",
    "ltx 0.9.0 t2v",
    "ltx 0.9.7 t2v",
    "ltx 2.0 t2v",
    "mochi",
    "svd",
    "animatediff",
]


def clip(backbone, latent_frames, batch=2):
    frames, side = 1 + (latent_frames - 1) * backbone.frames_per_latent, 2 * backbone.pixels_per_cell
    return torch.rand(batch, 3, frames, side, 2 * side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def modes(vae, video):
    """As diffusers encodes it: pictures one by one, where the autoencoder is one of pictures."""
    if "Temporal" in type(vae).__name__ or type(vae).__name__ == "AutoencoderKL":
        return torch.stack([vae.encode(one.transpose(0, 1)).latent_dist.mode().transpose(0, 1) for one in video])
    return torch.cat([vae.encode(one[None]).latent_dist.mode() for one in video])


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_decoding_what_was_encoded_is_what_the_autoencoder_gives_back(name, folders):
    backbone = load(folders(name), device="cpu", dtype="float32")
    for latent_frames in (1, 3):
        video = clip(backbone, latent_frames)
        x = backbone.encode(video)
        assert x.shape == backbone.latent_shape(2, *video.shape[2:]) and x.dtype == torch.float32
        given = video
        if name == "hunyuan i2v, latents beside":  # whose first latent frame is not shown
            given = torch.cat([video[:, :, :1].repeat(1, 1, backbone.frames_per_latent, 1, 1), video], dim=2)
        z, vae = modes(backbone.vae, given), backbone.vae
        told = {"temb": torch.zeros(2)} if getattr(vae.config, "timestep_conditioning", False) else {}
        if type(vae).__name__ == "AutoencoderKLTemporalDecoder":
            theirs = torch.stack([vae.decode(one.transpose(0, 1), len(one[0])).sample.transpose(0, 1) for one in z])
        elif type(vae).__name__ == "AutoencoderKL":
            theirs = torch.stack([vae.decode(one.transpose(0, 1)).sample.transpose(0, 1) for one in z])
        else:
            theirs = torch.cat([vae.decode(one[None], **{k: v[:1] for k, v in told.items()}).sample for one in z])
        ours = torch.cat(list(backbone.pixels(x)), dim=2)
        torch.testing.assert_close(ours, theirs[:, :, -video.shape[2] :].to(ours), atol=1e-4, rtol=1e-4)


def test_the_padding_of_cogvideox_15_is_its_first_latent_frame(folders):
    backbone = load(folders("cogvideox 1.5"), device="cpu", dtype="float32")
    x = backbone.encode(clip(backbone, 3))
    assert torch.equal(x[:, :, 0], x[:, :, 1]) and not torch.equal(x[:, :, 1], x[:, :, 2])


@pytest.mark.parametrize(
    "shape, says",
    [
        ((1, 3, 6, 32, 32), "num_frames is 6; this model makes a multiple of 4 plus 1, 1 or more: use 5 or 9"),
        ((1, 3, 5, 20, 32), "height is 20; this model makes a multiple of 8"),
        ((1, 4, 5, 32, 32), r"a video has the shape \(1, 4, 5, 32, 32\)"),
    ],
)
def test_other_sizes_are_refused(shape, says, folders):
    with pytest.raises(KinemaError, match=says):
        load(folders("wan 2.1 t2v"), device="cpu", dtype="float32").encode(torch.zeros(shape))
