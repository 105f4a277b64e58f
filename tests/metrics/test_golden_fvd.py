"""Published Frechet video distances, measured again where the published weights and videos are at hand.

Set KINEMA_GOLDEN to a folder that holds any of

- i3d_torchscript.pt, as kinema fetches it for the extractor i3d (or set KINEMA_GOLDEN=hub to have it fetched);
- example_videos/example0.mp4 ... example15.mp4, i3d_pretrained_400.pt, vit_g_hybrid_pt_1200e_ssv2_ft.pth,
  i3d_ucf101_full_res128_len16_skip1_seed0.pkl and videomae_ucf101_full_res128_len16_skip1_seed0.pkl, from where
  songweige/content-debiased-fvd fetches them.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from cd_fvd import FRAMES, I3DPort, as_videomae, example, same, statistics

from kinema.layers import pixels
from kinema.metrics.distribution.frechet import frechet_distance
from kinema.metrics.extractors import i3d
from kinema.metrics.extractors.extractor import load_extractor
from kinema.metrics.moments import Moments

GIANT = dict(image_size=224, patch_size=14, hidden_size=1408, num_hidden_layers=40, num_attention_heads=16)
GIANT |= dict(intermediate_size=6144, layer_norm_eps=1e-6, num_frames=16, tubelet_size=2, num_labels=174)


def golden(*names: str) -> list[Path]:
    """Files of KINEMA_GOLDEN; skips the test when one is not there."""
    given = os.environ.get("KINEMA_GOLDEN", "")
    paths = [Path(given) / name for name in names]
    absent = [path.name for path in paths if not given or not path.exists()]
    if absent:
        pytest.skip(f"set KINEMA_GOLDEN to a folder that holds {', '.join(absent)}; see the head of this file")
    return paths


def giant(path: Path):
    """VideoMAE v2 ViT-g, fine-tuned on Something-Something v2, in transformers' class."""
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification

    stored = torch.load(path, weights_only=True, map_location="cpu")
    stored = stored.get("module", stored.get("model", stored))
    with torch.device("meta"):
        network = VideoMAEForVideoClassification(VideoMAEConfig(**GIANT))
    position = network.videomae.embeddings.position_embeddings
    if position.is_meta:  # a fixed table and no weight
        from transformers.models.videomae.modeling_videomae import get_sinusoid_encoding_table

        network.videomae.embeddings.position_embeddings = get_sinusoid_encoding_table(*position.shape[1:])
    network.load_state_dict({key: value.float() for key, value in as_videomae(stored).items()}, assign=True)
    network.fc_norm.eps = 1e-6
    return network.eval()


def of_sixteen(features: list[np.ndarray], reference: Path) -> float:
    """The distance from UCF-101; that cd-fvd repeats the sixteen videos up to 2048 changes neither mean nor spread."""
    assert len(features) == 16
    mean, covariance = statistics(reference)
    return frechet_distance(Moments.of(features), Moments(13320, mean, covariance * 13320), unbiased=False)


def test_cd_fvd_example_with_i3d(monkeypatch):
    """github.com/songweige/content-debiased-fvd, issue 2: 3383.9670 and 3383.9646 on two machines."""
    names = "i3d_pretrained_400.pt", "example_videos", "i3d_ucf101_full_res128_len16_skip1_seed0.pkl"
    weights, videos, reference = golden(*names)
    network = I3DPort().eval()
    network.load_state_dict(torch.load(weights, weights_only=True, map_location="cpu"))
    monkeypatch.setattr(i3d, "program", lambda *known: network.to(pixels.device()))
    extractor = i3d.I3D(i3d.REPOSITORY)
    found = [extractor.clip(example(path), 8.0) for path in sorted(videos.glob("*.mp4"))]
    assert of_sixteen(found, reference) == pytest.approx(3383.97, rel=1e-4)


def test_cd_fvd_example_with_videomae():
    """The same issue: 1064.6156 on both machines."""
    names = "vit_g_hybrid_pt_1200e_ssv2_ft.pth", "example_videos", "videomae_ucf101_full_res128_len16_skip1_seed0.pkl"
    weights, videos, reference = golden(*names)
    from kinema.metrics.extractors.videomae import VideoMAE

    extractor = VideoMAE.__new__(VideoMAE)  # its preparation is another than that of cd-fvd
    extractor.network = giant(weights).to(pixels.device())
    found = []
    for path in sorted(videos.glob("*.mp4")):
        ready = pixels.resized(example(path), 224, antialias=False) / 255
        with torch.inference_mode():
            found.append(extractor.of(ready[None].to(pixels.device()))[0].cpu().numpy())
    assert of_sixteen(found, reference) == pytest.approx(1064.6156, rel=1e-4)


def test_noise_clips_with_the_known_i3d():
    """universome/fvd-comparison, compare_metrics.py: 10.138085 for two sets of 128 clips of noise in 0..1."""
    if os.environ.get("KINEMA_GOLDEN") == "hub":
        extractor = load_extractor("i3d")
    else:
        extractor = load_extractor(f"i3d@{golden('i3d_torchscript.pt')[0]}")
    sets = []
    for seed in (2, 1):
        random, moments = np.random.RandomState(seed), Moments()
        for _ in range(32):  # four clips at a time are the same numbers as all at once
            noise = torch.from_numpy(random.rand(4, FRAMES, 224, 224, 3).astype(np.float32))
            moments.update(extractor.of(noise.permute(0, 4, 1, 2, 3)))
        sets.append(moments)
    assert frechet_distance(*sets) == pytest.approx(10.138085, rel=1e-4)


def test_the_port_of_i3d_has_the_published_weights():
    with torch.device("meta"):
        names = dict(I3DPort().named_parameters())
    assert sum(weight.numel() for weight in names.values()) == 12_697_264  # as InceptionI3d of pytorch-i3d
    some = {"Conv3d_1a_7x7.conv3d.weight", "Mixed_4f.b2b.bn.bias", "Mixed_5c.b3b.conv3d.weight", "logits.conv3d.bias"}
    assert some <= set(names)


def test_what_is_around_a_clip_is_split_as_in_tensorflow():
    clip = torch.ones(1, 1, 4, 5, 6)
    assert same(clip, (3, 3, 3), (2, 2, 2)).shape == (1, 1, 5, 7, 7)
    assert same(clip, (3, 3, 3), (2, 2, 2))[0, 0, :, 3, 3].tolist() == [1, 1, 1, 1, 0]  # the odd one at the end
    assert same(clip, (3, 3, 3), (2, 2, 2))[0, 0, 2, :, 3].tolist() == [0, 1, 1, 1, 1, 1, 0]


def test_videomae_of_version_two_becomes_that_of_transformers(tmp_path, monkeypatch):
    d = 16
    sizes = dict(hidden_size=d, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2, image_size=28)
    monkeypatch.setattr("test_golden_fvd.GIANT", GIANT | sizes)
    shapes = {"patch_embed.proj.weight": (d, 3, 2, 14, 14), "patch_embed.proj.bias": (d,)}
    shapes |= {"fc_norm.weight": (d,), "fc_norm.bias": (d,), "head.weight": (174, d), "head.bias": (174,)}
    for block in ("blocks.0.", "blocks.1."):
        shapes |= {f"{block}{n}.{part}": (d,) for n in ("norm1", "norm2") for part in ("weight", "bias")}
        shapes |= {f"{block}attn.q_bias": (d,), f"{block}attn.v_bias": (d,), f"{block}attn.qkv.weight": (3 * d, d)}
        shapes |= {f"{block}attn.proj.weight": (d, d), f"{block}attn.proj.bias": (d,)}
        shapes |= {f"{block}mlp.fc1.weight": (40, d), f"{block}mlp.fc1.bias": (40,)}
        shapes |= {f"{block}mlp.fc2.weight": (d, 40), f"{block}mlp.fc2.bias": (d,)}
    torch.manual_seed(0)
    weights = {name: torch.randn(shape) for name, shape in shapes.items()}
    torch.save({"module": weights}, tmp_path / "published.pth")
    network = giant(tmp_path / "published.pth")  # refuses a name that is missing or left over
    heads = network.videomae.encoder.layer[1].attention.attention
    q, k, v = weights["blocks.1.attn.qkv.weight"].split(d)
    for part, rows in ((heads.query, q), (heads.key, k), (heads.value, v)):
        torch.testing.assert_close(part.weight, rows)
    with torch.inference_mode():
        out = network(torch.rand(1, 16, 3, 28, 28)).logits
    assert out.shape == (1, 174) and out.isfinite().all()


def test_statistics_are_read_and_programs_in_a_pickle_are_not(tmp_path):
    rows = np.random.default_rng(0).normal(size=(50, 3))
    stored = {"num_items": 50, "raw_mean": rows.sum(0), "raw_cov": rows.T @ rows, "capture_all": False}
    (tmp_path / "good.pkl").write_bytes(pickle.dumps(stored))
    mean, covariance = statistics(tmp_path / "good.pkl")
    np.testing.assert_allclose(mean, rows.mean(0))
    np.testing.assert_allclose(covariance, np.cov(rows, rowvar=False, bias=True))
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps(stored | {"other": os.getcwd}))
    with pytest.raises(pickle.UnpicklingError, match="getcwd"):
        statistics(tmp_path / "bad.pkl")
