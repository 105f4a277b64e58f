"""The networks that VBench's dimensions ask, as small random models in the layout in which they are published."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from clips import real_clips
from safetensors.torch import load_file, save_file

from kinema.core.errors import KinemaError, Unreachable
from kinema.metrics.extractors.extractor import load_extractor
from kinema.metrics.extractors.musiq import Musiq
from kinema.metrics.extractors.viclip import Net
from kinema.metrics.vbench.aesthetic_quality import aesthetic_quality
from kinema.metrics.vbench.motion_smoothness import motion_smoothness
from kinema.metrics.vbench.overall_consistency import overall_consistency
from kinema.metrics.viewing import Viewing
from tiny import tokenizer

VISION = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32,
              patch_size=16, projection_dim=8)  # fmt: skip
TEXT = dict(vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=16, bos_token_id=0, eos_token_id=1, pad_token_id=0)  # fmt: skip
CLIP_SIZE = dict(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


@pytest.fixture(scope="module")
def frames():
    return real_clips()[0].frames


def drawn(network: torch.nn.Module, std: float = 0.3) -> torch.nn.Module:
    torch.manual_seed(3)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=std)
    return network.eval()


def test_laion_is_a_line_on_features_of_length_one(frames, tmp_path):
    network = drawn(transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**VISION)))
    network.save_pretrained(tmp_path)
    transformers.CLIPImageProcessorPil(**CLIP_SIZE).save_pretrained(tmp_path)
    with pytest.raises(KinemaError, match="predictor"):
        load_extractor(f"laion@{tmp_path}")
    weight, bias = torch.randn(1, 8), torch.tensor([5.0])
    stored = load_file(tmp_path / "model.safetensors") | {"predictor.weight": weight, "predictor.bias": bias}
    save_file(stored, tmp_path / "model.safetensors", metadata={"format": "pt"})
    found = load_extractor(f"laion@{tmp_path}")
    pixels = transformers.CLIPImageProcessorPil(**CLIP_SIZE)(list(frames[:3]), return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        features = F.normalize(network(pixels).image_embeds, dim=-1)
    wanted = (features @ weight[0] + bias).numpy() / 10
    np.testing.assert_allclose(found.quality(frames[:3]), wanted, atol=1e-5)
    assert aesthetic_quality(Viewing(frames[:3]), extractor=found) == pytest.approx(wanted.mean(), abs=1e-5)


def musiq_weights() -> dict[str, torch.Tensor]:
    """Names and shapes as published, with 1 layer of width 64 on a grid of 10."""
    torch.manual_seed(5)
    inner, block = "transformer_encoder.", "transformer_encoder.transformer.encoderblock_0."
    shapes = {"conv_root.weight": (64, 3, 7, 7), "embedding.weight": (64, 16384), "embedding.bias": (64,),
              "head.weight": (1, 64), "head.bias": (1,), f"{inner}posembed_input.position_emb": (1, 100, 64),
              f"{inner}scaleembed_input.scale_emb": (3, 64), f"{inner}cls": (1, 1, 64),
              f"{block}mlp.fc1.weight": (32, 64), f"{block}mlp.fc1.bias": (32,),
              f"{block}mlp.fc2.weight": (64, 32), f"{block}mlp.fc2.bias": (64,)}  # fmt: skip
    for name, shape in (("1", (64, 64, 1, 1)), ("2", (64, 64, 3, 3)), ("3", (256, 64, 1, 1))):
        shapes[f"block1.conv{name}.weight"] = shape
        shapes |= {f"block1.gn{name}.{part}": shape[:1] for part in ("weight", "bias")}
    shapes["block1.conv_proj.weight"] = (256, 64, 1, 1)
    for name, width in (("gn_root", 64), ("block1.gn_proj", 256), (f"{inner}encoder_norm", 64),
                        (f"{block}norm1", 64), (f"{block}norm2", 64)):  # fmt: skip
        shapes |= {f"{name}.{part}": (width,) for part in ("weight", "bias")}
    for name in ("query", "key", "value", "out"):
        shapes |= {f"{block}attention.{name}.weight": (64, 64), f"{block}attention.{name}.bias": (64,)}
    return {name: torch.randn(shape) * 0.1 for name, shape in shapes.items()}


def test_musiq_looks_at_three_sizes_and_never_at_more_than_512_pixels(frames, tmp_path):
    save_file(musiq_weights(), tmp_path / "model.safetensors")
    found = load_extractor(f"musiq@{tmp_path}")
    score = found.quality(frames[:1])
    x = torch.from_numpy(frames[:1]).permute(0, 3, 1, 2) / 127.5 - 1
    net = Musiq(musiq_weights()).eval()
    np.testing.assert_allclose(score, net(x).detach().numpy() / 100, rtol=1e-4)
    large = F.interpolate(torch.from_numpy(frames[:1]).permute(0, 3, 1, 2), (300, 1024)).permute(0, 2, 3, 1).numpy()
    small = F.interpolate(torch.from_numpy(large).permute(0, 3, 1, 2).float(), (150, 512), mode="bilinear")
    np.testing.assert_allclose(found.quality(large), net(small / 127.5 - 1).detach().numpy() / 100, rtol=1e-4)
    patches, cells = net._patches(torch.zeros(1, 3, 40, 330))
    assert patches.shape == (1, 22, 3, 32, 32) and cells[:11].tolist() == [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert cells[11] == 50  # the second of two rows is half way down the grid of 10


def viclip_weights() -> dict[str, torch.Tensor]:
    """A ViCLIP of two frames of 2x2 patches, and 16 tokens."""
    torch.manual_seed(7)
    eyes, ears, width = "vision_encoder.", "text_encoder.", 64
    shapes = {f"{eyes}conv1.weight": (width, 3, 1, 14, 14), f"{eyes}class_embedding": (width,),
              f"{eyes}positional_embedding": (5, width), f"{eyes}temporal_positional_embedding": (1, 2, width),
              f"{eyes}proj": (width, 8), f"{ears}token_embedding.weight": (517, width),
              f"{ears}positional_embedding": (16, width), f"{ears}text_projection": (width, 8), "temp": ()}  # fmt: skip
    norms = [f"{eyes}ln_pre", f"{eyes}ln_post", f"{ears}ln_final"]
    for tower in (eyes, ears):
        block = f"{tower}transformer.resblocks.0."
        norms += [f"{block}ln_1", f"{block}ln_2"]
        shapes |= {f"{block}attn.in_proj_weight": (192, 64), f"{block}attn.in_proj_bias": (192,),
                   f"{block}attn.out_proj.weight": (64, 64), f"{block}attn.out_proj.bias": (64,),
                   f"{block}mlp.c_fc.weight": (256, 64), f"{block}mlp.c_fc.bias": (256,),
                   f"{block}mlp.c_proj.weight": (64, 256), f"{block}mlp.c_proj.bias": (64,)}  # fmt: skip
    shapes |= {f"{name}.{part}": (width,) for name in norms for part in ("weight", "bias")}
    return {name: torch.randn(shape) * 0.2 for name, shape in shapes.items()}


def test_viclip_sees_the_order_of_frames_and_reads_clips_words(frames, tmp_path):
    save_file(viclip_weights(), tmp_path / "model.safetensors")
    with gzip.open(tmp_path / "bpe_simple_vocab_16e6.txt.gz", "wt") as file:
        file.write("#version\nr e\nre d</w>\na t</w>\n")
    found = load_extractor(f"viclip@{tmp_path}")
    assert found.tokenizer("a red")["input_ids"] == [515, 320, 513, 516]  # 2 x 256 letters, 3 merges, start and end
    forth, back = found.clip(frames, 8.0), found.clip(frames[::-1], 8.0)
    assert forth.shape == (8,) and np.abs(forth - back).max() > 1e-3
    np.testing.assert_array_equal(forth, found.clip(frames[[5, 18]], 8.0))  # the middles of two halves of 25
    assert np.abs(found.text("red") - found.text("cat")).max() > 1e-3 and found.text("red " * 40).shape == (8,)
    value = overall_consistency(Viewing(frames, prompt="a red cat"), extractor=found)
    # of 8 frames VBench chooses, this one looks at the middles of the halves
    a, b = found.clip(frames[[1, 4, 7, 10, 13, 16, 19, 23]], 8.0), found.text("a red cat")
    assert value == pytest.approx(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)), abs=1e-5)


def test_viclips_text_is_clips():
    """Its text tower is CLIP's: the same weights in transformers give the same vectors."""
    net, weights = Net(viclip_weights()).eval(), viclip_weights()
    config = transformers.CLIPTextConfig(vocab_size=517, hidden_size=64, intermediate_size=256, num_hidden_layers=1,
                                         num_attention_heads=1, max_position_embeddings=16, projection_dim=8,
                                         bos_token_id=515, eos_token_id=516)  # fmt: skip
    peer = transformers.CLIPTextModelWithProjection(config).eval()
    tower, block = "text_encoder.", "text_encoder.transformer.resblocks.0."
    theirs = {k.removeprefix("text_model."): k for k in peer.state_dict()}
    layer = "encoder.layers.0."
    names = {"embeddings.token_embedding.weight": f"{tower}token_embedding.weight",
             "embeddings.position_embedding.weight": f"{tower}positional_embedding"}  # fmt: skip
    pairs = {
        "final_layer_norm": f"{tower}ln_final",
        f"{layer}layer_norm1": f"{block}ln_1",
        f"{layer}layer_norm2": f"{block}ln_2",
        f"{layer}mlp.fc1": f"{block}mlp.c_fc",
        f"{layer}mlp.fc2": f"{block}mlp.c_proj",
        f"{layer}self_attn.out_proj": f"{block}attn.out_proj",
    }
    names |= {f"{k}.{part}": f"{v}.{part}" for k, v in pairs.items() for part in ("weight", "bias")}
    values = {theirs[k]: weights[v] for k, v in names.items()}
    for part in ("weight", "bias"):
        for name, rows in zip("qkv", weights[f"{block}attn.in_proj_{part}"].chunk(3), strict=True):
            values[theirs[f"{layer}self_attn.{name}_proj.{part}"]] = rows
    values["text_projection.weight"] = weights[f"{tower}text_projection"].T
    peer.load_state_dict(values)
    ids = torch.tensor([[515, 3, 9, 516] + [0] * 12])
    with torch.inference_mode():
        torch.testing.assert_close(net.text_encoder(ids), peer(ids).text_embeds, atol=1e-5, rtol=1e-4)


class Mean(torch.nn.Module):
    def forward(self, one, other):
        return (one + other) / 2


def test_amt_is_a_program_that_makes_frames_between(frames, tmp_path):
    torch.jit.script(Mean()).save(str(tmp_path / "amt.pt"))
    found = load_extractor(f"amt@{tmp_path}")
    made = found.between(frames[:3])
    np.testing.assert_array_equal(made, (frames[:2].astype(int) + frames[1:3]) // 2)
    faded = np.stack([frames[0] // 2, frames[0] // 4 + frames[1] // 4, frames[1] // 2])
    assert motion_smoothness(Viewing(faded), extractor=found) > 0.99
    for name in ("amt", "musiq"):
        with pytest.raises(Unreachable, match=f"{name}@"):
            load_extractor(name)


def test_owlv2_finds_boxes_in_pixels_of_the_frame(frames, tmp_path):
    sizes = dict(text_config=TEXT, vision_config=VISION | dict(image_size=32, patch_size=16), projection_dim=16)
    network = drawn(transformers.Owlv2ForObjectDetection(transformers.Owlv2Config(**sizes)), 0.5)
    network.save_pretrained(tmp_path)
    transformers.Owlv2ImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    tokenizer(max_tokens=16).save_pretrained(tmp_path)
    found = load_extractor(f"owlv2@{tmp_path}").boxes(frames[:2], ("red ball", "cube"))
    height, width = frames.shape[1:3]
    boxes = [box for each in found for box in each]
    assert len(found) == 2 and boxes and {box.phrase for box in boxes} <= {"red ball", "cube"}
    for box in boxes:
        x0, y0, x1, y1 = box.edges
        assert 0 <= x0 <= x1 <= width and 0 <= y0 <= y1 <= height and 0.2 <= box.score <= 1


def test_blip_says_a_sentence_for_each_frame(frames, tmp_path):
    text = dict(vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                bos_token_id=2, eos_token_id=1, sep_token_id=1, pad_token_id=0, encoder_hidden_size=16)  # fmt: skip
    vision = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=32)
    config = transformers.BlipConfig(text_config=text, vision_config=vision | dict(patch_size=16))
    drawn(transformers.BlipForConditionalGeneration(config)).save_pretrained(tmp_path)
    transformers.BlipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    tokenizer(max_tokens=12).save_pretrained(tmp_path)
    found = load_extractor(f"blip@{tmp_path}")
    said = found.captions(frames[:18])
    assert len(said) == 18 and all(sentence == sentence.lower().strip() for sentence in said)
    assert found.captions(frames[:18]) == said and found.captions(frames[17:18]) == said[17:]


def test_what_does_not_fit_is_one_sentence(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    for name, says in (("blip", "blip"), ("owlv2", "owlv2"), ("laion", "clip_vision_model")):
        with pytest.raises(KinemaError, match=says):
            load_extractor(f"{name}@{tmp_path}")
    for name in ("viclip", "musiq"):
        with pytest.raises(KinemaError, match=r"no model\.safetensors"):
            load_extractor(f"{name}@{tmp_path}")
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    for name, says in (("viclip", "no ViCLIP"), ("musiq", "no MUSIQ")):
        with pytest.raises(KinemaError, match=says):
            load_extractor(f"{name}@{tmp_path}")
    with pytest.raises(KinemaError, match="no other models"):
        load_extractor("farneback@x")
