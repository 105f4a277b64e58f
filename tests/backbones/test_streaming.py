"""Streaming: blocks are in memory only while they compute, and the result is that of the loaded model, bit for bit."""

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
import torch
from diffusers import WanTransformer3DModel

import tiny
from backbones.families import cases
from kinema.backbones.load import load
from kinema.backbones.plan import Rehearsal
from kinema.backbones.shards import stored
from kinema.backbones.streaming import blocks_of
from kinema.core.errors import KinemaError
from kinema.core.loop import sample
from kinema.core.technique import Technique
from kinema.guidance.cfg import CFG
from kinema.request import Lora, Request

CASES = cases()
ROWS = (  # one of each kind of network, and of text encoder
    "wan 2.1 t2v",
    "wan 2.1 vace",
    "wan 2.2 t2v, two experts",
    "skyreels v2, a time per frame",
    "cogvideox 5b",
    "ltx 0.9.5 t2v",
    "mochi, no guidance",
    "hunyuan t2v, true guidance too",
    "hunyuan i2v, tokens replaced",
    "hunyuan 1.5 i2v",
)
LAYERS, SIZE = 6, dict(height=16, width=16, num_frames=5, num_inference_steps=2)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    from PIL import Image

    path = tmp_path_factory.mktemp("pictures") / "image.png"
    Image.new("RGB", (56, 40), (10, 200, 30)).save(path)
    return [path, path]


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A Wan model whose blocks are nearly all of it, in several files."""

    def network():
        sizes = dict(num_attention_heads=4, attention_head_dim=24, ffn_dim=256, text_dim=tiny.TEXT_DIM, freq_dim=32)
        return WanTransformer3DModel(
            patch_size=(1, 2, 2), in_channels=16, out_channels=16, num_layers=LAYERS, rope_max_seq_len=32, **sizes
        ).eval()

    few = dict(tokenizer=lambda: tiny.tokenizer(max_tokens=8))
    folder = tiny._save(tmp_path_factory.mktemp("wide"), "WanPipeline", "unipc", transformer=network, **few)
    part = folder / "transformer"
    network = WanTransformer3DModel.from_pretrained(part)
    shutil.rmtree(part)
    network.save_pretrained(part, max_shard_size="600KB")
    assert len(list(part.glob("*.safetensors"))) > 2
    return folder


def asked(name, pictures):
    case = CASES[name]
    images = dict(zip(("image", "last_image"), pictures[: case.images], strict=False))
    words = dict(prompt=tiny.WORDS[0], negative_prompt=tiny.WORDS[3])
    return Request(**words, seed=3, **{**case.request, "num_inference_steps": 2}, **images)


@pytest.mark.parametrize(
    "name, dtype", [*((name, "float32") for name in ROWS), (ROWS[0], "bfloat16"), ("hunyuan t2v", "bfloat16")]
)
def test_same_as_loaded(name, dtype, tmp_path, pictures):
    folder, case = CASES[name].build(tmp_path), CASES[name]
    guidance = list(case.guides) or ([CFG(scale=case.scale)] if case.scale != 1 else [])
    frames, latents = [], []
    for how in (None, "stream"):
        backbone = load(folder, "cpu", dtype, offload=how)
        frames.append(sample(backbone, asked(name, pictures), guidance, on_step=lambda step, x: latents.append(x)))
    assert torch.equal(latents[1], latents[-1]) and torch.equal(*frames)
    assert all(p.is_meta for _, block in blocks_of(backbone.transformer) for p in block.parameters())


def request(**more):
    return Request(**{**SIZE, "prompt": "a red ball", "seed": 1, **more})


def test_never_more_than_three_blocks(wide):
    """Counted from outside: all memory that torch takes in a forward, and which weights are there in each block."""
    backbone = load(wide, "cpu", "float32", offload="stream")
    network, blocks = backbone.transformer, [block for _, block in blocks_of(backbone.transformer)]
    one = sum(p.numel() * 4 for p in blocks[0].parameters())
    there = []
    for block in blocks:
        block.attn1.to_q.register_forward_hook(
            lambda *_: there.append([i for i, b in enumerate(blocks) if not any(p.is_meta for p in b.parameters())])
        )
    conditions = backbone.prepare([request()])
    x = torch.zeros(conditions.shape)
    with torch.no_grad(), Rehearsal() as counted:
        backbone.velocity(x, 0.5, conditions)
    assert there == [[i] for i in range(LAYERS)]
    assert len(blocks) == LAYERS and 2 * one < counted.most < 3 * one  # activations, and views of what stays, too
    assert 2 * one <= backbone.folder.stream.most < 2.1 * one
    kept = sum(p.numel() * 4 for part in (network, backbone.text_encoder) for p in part.parameters() if not p.is_meta)
    assert kept <= backbone.folder.stream.kept < kept + one  # tables of positions, too


def test_nothing_is_left_open(wide):
    backbone = load(wide, "cpu", "float32", offload="stream")
    before = threading.active_count()

    def stop(*anything):
        raise RuntimeError("enough")

    sample(backbone, request())
    with pytest.raises(RuntimeError, match="enough"):
        sample(backbone, request(), on_step=stop)
    block = blocks_of(backbone.transformer)[2][1]
    hook = block.attn1.register_forward_hook(stop)
    with pytest.raises(RuntimeError, match="enough"):
        sample(backbone, request())
    hook.remove()
    assert threading.active_count() == before
    assert all(p.is_meta for _, b in blocks_of(backbone.transformer) for p in b.parameters())
    assert backbone.folder.stream._reading is None
    assert torch.equal(sample(backbone, request()), sample(load(wide, "cpu", "float32"), request()))


@dataclass(frozen=True, kw_only=True)
class Looks(Technique):
    name = "looks"
    seen: list = field(default_factory=list)

    def wants(self, site):
        return True

    def attend(self, step, site, q, k, v, positions, next):
        self.seen.append(site.block)
        return next(q, k, v, positions)


def test_two_threads_and_a_technique(wide):
    backbone, plain = load(wide, "cpu", "float32", offload="stream"), load(wide, "cpu", "float32")
    look = Looks()
    jobs = [(request(seed=1), ()), (request(seed=2), (look,)), (request(seed=3), ())]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda job: sample(backbone, *job), jobs))
    for frames, (asked, _) in zip(found, jobs, strict=True):
        assert torch.equal(frames, sample(plain, asked))
    assert set(look.seen) == set(range(LAYERS))


@pytest.mark.parametrize(
    "words, change",
    [
        ("missing weights, first blocks.0.attn1.norm_k.weight", "other"),
        ("cannot be read", "cut"),
        ("names 'none.safetensors', which is not there", "gone"),
        ("names '../vae/config.json', which is not there", "outside"),
    ],
)
def test_damaged_files_are_one_sentence(words, change, wide, tmp_path):
    folder = shutil.copytree(wide, tmp_path / "model")
    part = folder / "transformer"
    index = next(part.glob("*.index.json"))
    first = part / json.loads(index.read_text())["weight_map"]["blocks.0.attn1.to_q.weight"]
    if change == "cut":
        first.write_bytes(first.read_bytes()[:-100])
    else:
        old = first.name if change != "other" else "blocks.0.attn1.norm_k.weight"
        new = {"gone": "none.safetensors", "outside": "../vae/config.json"}.get(change)
        if new:
            index.write_text(index.read_text().replace(old, new))
        else:
            first.write_bytes(
                first.read_bytes().replace(b"blocks.0.attn1.norm_k.weight", b"blocks.0.attn1.norm_k.xeight")
            )
    with pytest.raises(KinemaError, match=words) as error:
        load(folder, "cpu", "float32", offload="stream")
    assert "\n" not in str(error.value)


def test_a_file_that_is_cut_during_the_run_is_one_sentence(wide, tmp_path):
    folder = shutil.copytree(wide, tmp_path / "model")
    backbone = load(folder, "cpu", "float32", offload="stream")
    place = stored(folder / "transformer")["blocks.4.ffn.net.2.weight"]
    with place.file.open("r+b") as file:
        file.truncate(place.start + 5)
    with pytest.raises(KinemaError, match="ends too early"):
        sample(backbone, request())


def test_what_cannot_be_streamed_is_refused(tmp_path, wide):
    with pytest.raises(KinemaError, match="offload 'stream' needs a transformer"):
        load(CASES["svd"].build(tmp_path / "svd"), "cpu", offload="stream")
    with pytest.raises(KinemaError, match="leave lora out"):
        load(wide, "cpu", offload="stream", lora=Lora(path="some.safetensors"))
    with pytest.raises(KinemaError, match="which compile cannot"):
        load(wide, "cpu", offload="stream", compile=True)
