"""Extractors of transformers on small random models, saved in the layout of the hub."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers
from clips import real_clips
from PIL import Image

from kinema.core.errors import KinemaError, Unreachable
from kinema.layers.hub import Source
from kinema.metrics.extractors.extractor import load_extractor
from tiny import tokenizer

TEXT = dict(vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
TEXT |= dict(max_position_embeddings=12, bos_token_id=0, eos_token_id=1, pad_token_id=0)
VISION = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
VISION |= dict(image_size=32, patch_size=16)
CLIP_SIZE = dict(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
SQUARE = dict(size={"height": 32, "width": 32})
MIT = dict(mit_hidden_size=8, mit_intermediate_size=16, mit_num_hidden_layers=1, mit_num_attention_heads=2)
XCLIP = dict(projection_dim=8, prompt_layers=1, prompt_num_attention_heads=2)
VIDEO = VISION | dict(num_frames=4, tubelet_size=2, num_labels=5)

# kind -> (class of the configuration, its values, class of the network, class of the preparation, its values)
MODELS = {
    "clip": ("CLIPConfig", dict(text_config=TEXT, vision_config=VISION, projection_dim=8), "CLIPModel",
             "CLIPImageProcessorPil", CLIP_SIZE),
    "siglip": ("SiglipConfig", dict(text_config=TEXT, vision_config=VISION), "SiglipModel",
               "SiglipImageProcessorPil", SQUARE),
    "xclip": ("XCLIPConfig", dict(text_config=TEXT, vision_config=VISION | MIT | dict(num_frames=4), **XCLIP),
              "XCLIPModel", "VideoMAEImageProcessorPil", CLIP_SIZE),
    "dino": ("ViTConfig", VISION, "ViTModel", "ViTImageProcessorPil", SQUARE),
    "dinov2": ("Dinov2Config", VISION, "Dinov2Model", "BitImageProcessorPil", CLIP_SIZE),
    "videomae": ("VideoMAEConfig", VIDEO, "VideoMAEForVideoClassification", "VideoMAEImageProcessorPil", CLIP_SIZE),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """folder("clip") gives the path of a small random model of that kind."""
    made = {}

    def build(kind: str) -> str:
        if kind not in made:
            path = tmp_path_factory.mktemp(kind)
            config, values, network, preparation, sizes = MODELS[kind]
            torch.manual_seed(3)
            options = {"add_pooling_layer": False} if kind == "dino" else {}
            model = getattr(transformers, network)(getattr(transformers, config)(**values), **options)
            for weight in model.parameters():  # the usual start is so near 0 that all features are nearly alike
                torch.nn.init.normal_(weight, std=0.3)
            model.save_pretrained(path)
            getattr(transformers, preparation)(**sizes).save_pretrained(path)
            tokenizer(max_tokens=12).save_pretrained(path)
            made[kind] = str(path)
        return made[kind]

    return build


@pytest.fixture(scope="module")
def frames():
    return real_clips()[0].frames


def prepared(path: str, frames: np.ndarray) -> torch.Tensor:
    processor = transformers.AutoImageProcessor.from_pretrained(path)
    found = processor([Image.fromarray(frame) for frame in frames], return_tensors="pt")["pixel_values"]
    return found.reshape(len(frames), 3, 32, 32)


def model(kind: str, path: str):
    return getattr(transformers, MODELS[kind][2]).from_pretrained(path).eval()


def same(found: np.ndarray, wanted: torch.Tensor) -> None:
    assert found.dtype == np.float32
    assert found.shape == tuple(wanted.shape) and found.std() > 0.01
    np.testing.assert_allclose(found, wanted.detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_frames_and_sentences_are_those_of_the_models_own_forward(kind, folder, frames):
    path = folder(kind)
    words = tokenizer(max_tokens=12)(["red ball"], return_tensors="pt")
    if kind == "siglip":
        words = tokenizer(max_tokens=12)(["red ball"], padding="max_length", max_length=12, return_tensors="pt")
        words.pop("attention_mask")
    out = model(kind, path)(input_ids=words["input_ids"], pixel_values=prepared(path, frames))
    got = load_extractor(f"{kind}@{path}")
    seen, read = torch.from_numpy(got.frames(frames)), torch.from_numpy(got.text("red ball"))
    same((seen / seen.norm(dim=1, keepdim=True)).numpy(), out.image_embeds)  # the model makes them unit length
    same((read / read.norm()).numpy(), out.text_embeds[0])
    assert abs(read.norm() - 1) > 0.01


def test_siglip_reads_small_letters_and_long_sentences_are_cut(folder):
    siglip, clip = load_extractor("siglip@" + folder("siglip")), load_extractor("clip@" + folder("clip"))
    np.testing.assert_array_equal(siglip.text("RED Ball"), siglip.text("red ball"))
    assert clip.text("red ball " * 100).shape == (8,)


def test_xclip_sees_frames_spread_over_the_clip(folder, frames):
    path = folder("xclip")
    got = load_extractor(f"xclip@{path}")
    pixels = prepared(path, frames[[0, 8, 16, 24]])
    words = tokenizer(max_tokens=12)(["red ball"], return_tensors="pt")
    net = model("xclip", path)
    same(got.clip(frames, 8.0), net.get_video_features(pixels[None]).pooler_output[0])
    same(got.text("red ball"), net.get_text_features(**words).pooler_output[0])
    out = net(**words, pixel_values=pixels[None])
    seen = torch.from_numpy(got.clip(frames, 8.0))
    same((seen / seen.norm()).numpy(), out.video_embeds[0])


@pytest.mark.parametrize("kind", ["dino", "dinov2"])
def test_dino_is_the_class_token(kind, folder, frames):
    path = folder(kind)
    out = model(kind, path)(prepared(path, frames))
    same(load_extractor(f"dino@{path}").frames(frames), out.last_hidden_state[:, 0])


def test_videomae_gives_what_its_classifier_reads(folder, frames):
    path = folder("videomae")
    got, net = load_extractor(f"videomae@{path}"), model("videomae", path)
    pixels = prepared(path, frames[[0, 8, 16, 24]])
    read = []
    net.classifier.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0]))
    same(got.logits(frames, 8.0), net(pixels[None]).logits[0])
    same(got.clip(frames, 8.0), read[0][0])


def test_the_label_names_another_model(folder):
    path = folder("dino")
    assert load_extractor(f"dino@{path}").label == f"dino@{path}"


def test_a_clip_that_is_too_short_is_refused(folder, frames):
    with pytest.raises(KinemaError, match="clip has 1 frame; videomae needs 4"):
        load_extractor("videomae@" + folder("videomae")).clip(frames[:1], 8.0)


def test_a_model_that_cannot_be_had_is_one_sentence(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(Unreachable) as caught:
        load_extractor("clip@owner/nothing-like-this")
    assert str(caught.value) == (
        "extractor clip needs owner/nothing-like-this, and the hub cannot be reached and there is no copy on this "
        "machine; give a folder that holds it with clip@/path"
    )


def test_a_model_that_the_hub_refuses_is_one_sentence(monkeypatch):
    from huggingface_hub.errors import HFValidationError

    def refuse(*args, **kwargs):
        raise HFValidationError("no such model.\nmore lines")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", refuse)
    with pytest.raises(Unreachable, match="needs owner/gone, and the hub answered: no such model; give a folder that"):
        load_extractor("dino@owner/gone")


def test_frames_are_prepared_as_an_old_configuration_says(tmp_path, frames):
    """Published checkpoints of CLIP write their sizes as one number and name a class that is no more."""
    old = dict(feature_extractor_type="CLIPFeatureExtractor", crop_size=32, do_center_crop=True, do_normalize=True)
    old |= dict(do_resize=True, size=32, resample=3, image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.3, 0.4])
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(old))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))
    found = Source.open("clip", str(tmp_path)).preparation()(frames[:2])
    picture = Image.fromarray(frames[1])
    width = round(picture.width * 32 / picture.height - 0.5)
    cut = np.asarray(picture.resize((width, 32), Image.Resampling.BICUBIC))[:, (width - 32) // 2 :][:, :32]
    wanted = (cut / 255 - old["image_mean"]) / old["image_std"]
    np.testing.assert_allclose(found[1].permute(1, 2, 0), wanted, atol=1e-5)


@pytest.mark.parametrize(
    "model, says",
    [
        ("./nothing", "there is no file or folder nothing"),
        ("nothing", "'nothing' is neither a hub id"),
        ("{empty}", "has no config.json"),
        ("{dino}", "is a model of type vit; clip takes clip"),
        ("{pickled}", "its weights cannot be read"),
        ("{torn}", "lacks 1 weights, first visual_projection.weight"),
        ("{blind}", "its preprocessor_config.json cannot be read"),
    ],
)
def test_what_does_not_fit_is_one_sentence(model, says, folder, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    (tmp_path / "empty").mkdir()
    for name in ("pickled", "torn", "blind"):
        shutil.copytree(folder("clip"), tmp_path / name)
    weights = load_file(tmp_path / "torn" / "model.safetensors")
    torch.save(weights, tmp_path / "pickled" / "pytorch_model.bin")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    del weights["visual_projection.weight"]
    save_file(weights, tmp_path / "torn" / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "blind" / "preprocessor_config.json").unlink()
    places = {name: str(tmp_path / name) for name in ("empty", "pickled", "torn", "blind")}
    with pytest.raises(KinemaError, match=says) as caught:
        load_extractor("clip@" + model.format(dino=folder("dino"), **places))
    assert "\n" not in str(caught.value)


class FakeI3D(torch.nn.Module):
    """The call of the published program, with a few sums for features."""

    def forward(
        self, x: torch.Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False
    ) -> torch.Tensor:
        assert not rescale and not resize and return_features
        return torch.cat([x.mean((2, 3, 4)), x.amin((2, 3, 4)), x[:, :, 0].mean((2, 3)), x[:, :, -1].mean((2, 3))], 1)


class FakeInception(torch.nn.Module):
    def forward(self, img: torch.Tensor, return_features: bool = False, no_output_bias: bool = False) -> torch.Tensor:
        mean = img.float().mean((2, 3))
        if return_features:
            return mean
        assert no_output_bias
        return torch.softmax(mean / 50, dim=1)


def scripted(module: torch.nn.Module, path) -> str:
    torch.jit.script(module).save(str(path))
    return str(path)


def test_i3d_sees_the_first_sixteen_frames_from_minus_one_to_one(tmp_path):
    name = "i3d@" + scripted(FakeI3D(), tmp_path / "i3d_torchscript.pt")
    clip = np.stack([np.full((9, 12, 3), (0, i, 255), np.uint8) for i in range(0, 200, 10)])
    for got in (load_extractor(name), load_extractor(f"i3d@{tmp_path}")):  # the file, or its folder
        rgb = np.array([[-1, -1, -1, -1], [75 / 127.5 - 1, -1, -1, 150 / 127.5 - 1], [1, 1, 1, 1]])
        np.testing.assert_allclose(got.clip(clip, 8.0), rgb.T.reshape(-1), atol=1e-5)
        np.testing.assert_array_equal(got.clip(clip, 8.0), got.logits(clip, 8.0))
        with pytest.raises(KinemaError, match="clip has 9 frames; i3d needs 16"):
            got.clip(clip[:9], 8.0)


def test_inception_gets_bytes_and_gives_the_mean_probability(tmp_path, frames):
    got = load_extractor("inception@" + scripted(FakeInception(), tmp_path / "any.pt"))
    means = frames.mean((1, 2))
    np.testing.assert_allclose(got.frames(frames), means, rtol=1e-5)
    chances = torch.softmax(torch.from_numpy(means) / 50, 1).mean(0)
    np.testing.assert_allclose(np.exp(got.logits(frames, 8.0)), chances, rtol=1e-4)


def test_a_program_that_kinema_does_not_know_is_not_run(tmp_path, monkeypatch):
    from kinema.metrics.extractors import i3d, inception

    (tmp_path / "checkpoints").mkdir()
    path = scripted(FakeInception(), tmp_path / "checkpoints" / "inception-2015-12-05.pt")
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(i3d, "on_hub", lambda *known: path)
    monkeypatch.setattr(torch.jit, "load", None)  # it is not even opened
    for kind in (i3d.I3D, inception.Inception):
        with pytest.raises(KinemaError, match="is not the file kinema knows .* and is not run"):
            kind(kind.usual)
    with pytest.raises(KinemaError, match="only the known i3d_torchscript.pt is fetched"):
        i3d.I3D("owner/other")


def test_a_known_program_is_run(tmp_path, monkeypatch, frames):
    from kinema.files import sha256
    from kinema.metrics.extractors import inception

    (tmp_path / "checkpoints").mkdir()
    path = scripted(FakeInception(), tmp_path / "checkpoints" / "inception-2015-12-05.pt")
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(inception, "SHA256", sha256(path))
    got = inception.Inception(inception.ADDRESS)
    assert got.label == "inception" and got.frames(frames).shape == (25, 3)


def test_programs_that_cannot_be_had_are_one_sentence(monkeypatch, tmp_path):
    from urllib.error import URLError

    def silence(*args, **kwargs):
        raise URLError("no route")

    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", silence)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(Unreachable, match=r"inception needs https://.*fetching it failed: no route; give a folder"):
        load_extractor("inception")
    with pytest.raises(Unreachable, match="i3d needs flateon/FVD-I3D-torchscript, and the hub cannot be reached"):
        load_extractor("i3d")
    (tmp_path / "torn.pt").write_bytes(b"nothing")
    with pytest.raises(KinemaError, match="is no TorchScript that can be read"):
        load_extractor(f"i3d@{tmp_path / 'torn.pt'}")
    with pytest.raises(KinemaError, match="holds no i3d_torchscript.pt"):
        load_extractor(f"i3d@{tmp_path}")
