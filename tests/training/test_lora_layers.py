"""Training a LoRA: it learns real videos, its file gives the very same network, and taken out it leaves nothing."""

import json

import pytest
import torch
from safetensors import safe_open

import real_videos
import tiny
from backbones.families import cases
from kinema.backbones.load import load
from kinema.backbones.lora import FILE
from kinema.core.errors import KinemaError
from kinema.training import lora as training
from kinema.training.buckets import BucketSettings
from kinema.training.clips import Drawn
from kinema.training.denoising import LearningSettings, Predictor, TeacherSettings
from kinema.training.lora import LoraSettings, export_lora, lora_stage, train_lora
from kinema.training.lora_layers import LoraLayers, LoraLayersSettings
from kinema.training.own_clips import OwnClipsSettings
from kinema.training.preview import PreviewSettings
from kinema.training.trainer import TrainerSettings

pytest.importorskip("peft")

CASES = cases()
EVERYTHING = ("to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "net.2", "proj_out")
CLIPS = OwnClipsSettings(buckets=BucketSettings(height=64, width=64, num_frames=9, fps=8, all_aspects=False))


def settings(model, steps, batch_size=2, **more):
    """Of a short training without averages and without pictures on the way."""
    trainer = TrainerSettings(
        steps=steps, batch_size=batch_size, lr=0.01, warmup_steps=1, ema=0.0, precision="fp32", sheet_seconds=1e9
    )
    told = dict(
        trainer=trainer,
        model=str(model),
        adapter=LoraLayersSettings(rank=16, targets=EVERYTHING),
        clips=CLIPS,
        learning=LearningSettings(caption_dropout=0.0),
        preview=PreviewSettings(prompts=("a red ball",), steps=1, num_frames=5, height=32, width=32),
    )
    return LoraSettings(**{**told, **more})


def velocity(backbone, x, words="a red ball"):
    """At x and the noise level 0.6."""
    with torch.no_grad():
        return Predictor(backbone).velocity(x, torch.full((len(x),), 0.6), [words] * len(x))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training on four pieces of real videos, and the losses before and after it on fixed noise and times."""
    root = tmp_path_factory.mktemp("lora")
    data, model = root / "data", tiny.kinema_mini(root / "model")
    data.mkdir()
    for name, caption in (("bikes.mp4", "a red ball rolls"), ("bigbuckbunny.mp4", "the blue cube jumps")):
        real_videos.piece(name, 57, rows=64).save(data / name)  # 18 frames at 8 fps: two pieces
        (data / name).with_suffix(".txt").write_text(caption)
    told, said, seen = settings(model, steps=50, batch_size=4), [], {}

    def watched(*given):
        stage, adapter = lora_stage(*given)
        fixed = stage.batch(0, torch.Generator().manual_seed(5))  # all four, one noise and one time each
        stage.batch = lambda step, generator: fixed
        seen.update(stage=stage, adapter=adapter, losses=[])
        loss = stage.loss
        stage.loss = lambda *given: seen["losses"].append(loss(*given)) or seen["losses"][-1]
        return stage, adapter

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "lora_stage", watched)
        report = train_lora(told, data, root / "run", "cpu", said.append)
    losses = [float(loss.detach()) for loss, _ in seen["losses"]]
    return dict(seen, losses=losses, report=report, root=root, model=model, told=told, said=said)


def test_four_pieces_of_real_videos_are_learned(trained):
    clips = trained["stage"].clips
    assert sum(map(len, clips.buckets.values())) == 4 and clips.num_frames == 9
    first, last = trained["losses"][0], trained["losses"][-1]
    print(f"loss on fixed noise and times: {first:.3f} -> {last:.3f}")
    assert last < 0.5 * first
    assert not trained["report"].interrupted and trained["said"][-1].startswith("wrote ")


def test_the_file_is_the_trained_network_and_without_it_the_model_is_the_old_one(trained, tmp_path):
    x = torch.randn(2, 8, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    backbone, adapter = trained["stage"].backbone, trained["adapter"]
    learned = velocity(backbone, x)
    loaded = load(trained["model"], "cpu", "float32", lora=trained["root"] / "run")
    assert torch.equal(velocity(loaded, x), learned)
    file = export_lora(trained["told"], trained["root"] / "run", tmp_path, "cpu")
    with safe_open(file, "pt") as ours, safe_open(trained["root"] / "run" / FILE, "pt") as theirs:
        assert set(ours.keys()) == set(theirs.keys())
        assert all(torch.equal(ours.get_tensor(key), theirs.get_tensor(key)) for key in ours.keys())  # noqa: SIM118
        card = json.loads(theirs.metadata()["kinema"])
    assert card["training"]["steps"] == 50 and card["data"]["pieces"] == 4
    plain = load(trained["model"], "cpu", "float32")
    before = velocity(plain, x)
    assert (learned - before).abs().max() > 0.1
    adapter.take_out()
    assert torch.equal(velocity(backbone, x), before)
    assert repr(backbone.transformer) == repr(plain.transformer)
    assert not any(p.requires_grad for p in backbone.transformer.parameters())


class Random:
    """Latents of a shape, the same each time."""

    num_frames = 9

    def __init__(self, shape):
        self.shape, self.captions = shape, ("a red ball",)

    def draw(self, step, size, generator):
        return Drawn(torch.randn(size, *self.shape[1:], generator=generator), ["a red ball"] * size)


OTHERS = ["cogvideox 1.5, no guidance", "animatediff, joined, v, alone"]


@pytest.mark.parametrize("name", OTHERS)
def test_other_families_attach_train_save_and_load(name, tmp_path):
    model = CASES[name].build(tmp_path / "model")
    backbone = load(model, "cpu", "float32")
    told = settings(model, 2, adapter=LoraLayersSettings(rank=4, alpha=8, dropout=0.1, gradient_checkpointing=True))
    request = CASES[name].request
    shape = backbone.latent_shape(1, request["num_frames"], request["height"], request["width"])
    stage, adapter = lora_stage(told, backbone, Random(shape))
    with adapter:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        before = velocity(backbone, x)
        assert torch.equal(before, velocity(load(model, "cpu", "float32"), x))  # B begins as zero
        parameters = [p for module in stage.modules.values() for p in module.parameters() if p.requires_grad]
        assert sum(p.numel() for p in parameters) == adapter.size
        optimizer = torch.optim.SGD(parameters, lr=1.0)
        for step in range(2):
            for module in stage.modules.values():
                module.train()
            loss, _ = stage.loss(stage.batch(step, torch.Generator().manual_seed(step)), torch.Generator())
            loss.backward()
            optimizer.step()
        for module in stage.modules.values():
            module.eval()
        adapter.save(tmp_path / "saved")
        after = velocity(backbone, x)
    loaded = load(model, "cpu", "float32", lora=tmp_path / "saved")
    torch.testing.assert_close(velocity(loaded, x), after, atol=1e-6, rtol=1e-6)
    assert (after - before).abs().max() > 1e-4
    assert torch.equal(velocity(backbone, x), before)  # taken out on leaving


def test_diffusers_loads_the_file(tmp_path):
    import diffusers

    model = CASES["cogvideox 5b, no guidance"].build(tmp_path / "model")
    backbone = load(model, "cpu", "float32")
    adapter = LoraLayers(backbone, LoraLayersSettings(rank=4, alpha=2))
    for key, parameter in backbone.transformer.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(len(key)))
    adapter.save(tmp_path / "saved")
    pipeline = diffusers.CogVideoXPipeline.from_pretrained(model)
    pipeline.load_lora_weights(tmp_path / "saved")
    shape = (1, 3, 16, 4, 8)
    given = dict(
        hidden_states=torch.randn(shape, generator=torch.Generator().manual_seed(0)),
        encoder_hidden_states=torch.ones(1, 226, tiny.TEXT_DIM),
        timestep=torch.tensor([500.0]),
        image_rotary_emb=backbone._make_rotary(3, 4, 8)[0],
        return_dict=False,
    )
    with torch.no_grad():
        torch.testing.assert_close(pipeline.transformer(**given)[0], backbone.transformer(**given)[0])


@pytest.mark.parametrize(
    "name, told, says",
    [
        ("wan 2.2 t2v, two experts", {}, "set batch_size to 1 and accumulate to more"),
        ("ltx 2.0 t2v", {}, "makes sound along with its video"),
        ("wan 2.1 t2v", dict(adapter=LoraLayersSettings(targets=("to_x",))), "ends in 'to_x'; it has .*to_q"),
    ],
)
def test_refusals_are_one_sentence(name, told, says, tmp_path):
    model = CASES[name].build(tmp_path / "model")
    backbone = load(model, "cpu", "float32")
    with pytest.raises(KinemaError, match=says) as error:
        lora_stage(settings(model, 1, **told), backbone, Random((1, 16, 3, 4, 4)))
    assert "\n" not in str(error.value)


def test_numbers_that_make_no_sense_are_refused():
    for bad, says in ((dict(rank=0), "rank is 0"), (dict(alpha=0), "alpha is 0"), (dict(dropout=1), "dropout is 1")):
        with pytest.raises(ValueError, match=says):
            LoraLayersSettings(**bad)
    with pytest.raises(ValueError, match="train and train_text are for whole networks"):
        settings("mini", 1, learning=LearningSettings(train_text=True))
    with pytest.raises(ValueError, match="learns from clips alone"):
        settings("mini", 1, learning=LearningSettings(teacher=TeacherSettings()))
    with pytest.raises(ValueError, match="without targets changes nothing"):
        LoraLayersSettings(targets=())
