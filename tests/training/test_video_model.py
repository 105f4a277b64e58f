"""Training a video model of each kind: batches, loss, parts that learn, resume, and the model folder it leaves."""

import json
import math
from dataclasses import replace

import pytest
import torch

from kinema.backbones.load import load
from kinema.models.autoencoder import AutoencoderKLKinema
from kinema.training.clips import LengthSettings
from kinema.training.denoising import LearningSettings, TeacherSettings
from kinema.training.export import load_averaged
from kinema.training.latents import CacheSettings
from kinema.training.networks import NetworkSettings, build_network
from kinema.training.objective import FLOW
from kinema.training.preview import PreviewSettings
from kinema.training.trainer import Trainer, TrainerSettings
from kinema.training.video_model import build_stage, check_learning, export_checkpoint, open_clips, train_video_model
from kinema.training.video_settings import Place, TextSettings, VideoSettings

NETWORKS = {
    "wan": NetworkSettings(num_layers=1, num_attention_heads=2, attention_head_dim=12, ffn_dim=32, freq_dim=16),
    "cogvideox": NetworkSettings(
        kind="cogvideox", num_layers=1, num_attention_heads=2, attention_head_dim=16, time_embed_dim=8
    ),
    "unet": NetworkSettings(kind="unet", num_layers=1, num_attention_heads=2, block_out_channels=(16, 16)),
}
SETTINGS = VideoSettings(
    trainer=TrainerSettings(steps=2, batch_size=2, warmup_steps=1, precision="fp32"),
    text=TextSettings(d_model=16, d_ff=16, num_layers=1, num_heads=2, captions=200),
    cache=CacheSettings(clips=4, start=4, clips_per_shard=4, render_batch=4),
    preview=PreviewSettings(prompts=("a red ball rolls left",), steps=1),
)


def settings_of(kind):
    learning = LearningSettings(given_share=0.3 if kind == "wan" else 0.0, train_text=kind == "wan")
    return replace(SETTINGS, network=NETWORKS[kind], learning=learning)


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    folder = tmp_path_factory.mktemp("autoencoder") / "vae"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoencoderKLKinema(widths=(8, 8, 8), z_dim=4, decoder_depths=(1, 1, 1)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=sorted(NETWORKS))
def run(request, vae, tmp_path_factory):
    """Kind, settings and place of a training of two steps."""
    settings = settings_of(request.param)
    place = Place(folder=tmp_path_factory.mktemp(request.param), section="stage2", autoencoder=vae)
    report = train_video_model(settings, place, say=lambda _: None)
    assert report.step == 2 and math.isfinite(report.loss)
    return request.param, settings, place


def stage_of(settings, place, model=None):
    backbone = load(model or place.folder / "start", dtype="float32")
    with open_clips(settings, place, backbone, print) as clips:
        return build_stage(settings, place, backbone, clips)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_batches_are_functions_of_step_and_generator_and_vary_in_kind(run):
    kind, settings, place = run
    stage = stage_of(replace(settings, lengths=LengthSettings(image_share=0.2, short_share=0.2)), place)
    batches = [stage.batch(1, generator(s)) for s in range(60)]
    lengths = [b["latents"].shape[2] for b in batches]
    assert lengths.count(7) > 25 and 1 in lengths and any(1 < n < 7 for n in lengths)
    assert all(not b["given"].any() for b in batches if b["latents"].shape[2] == 1)
    share = sum(bool(b["given"].any()) for b in batches) / len(batches)
    assert 0.1 < share < 0.5 if kind == "wan" else share == 0
    assert 0.02 < sum(p == "" for b in batches for p in b["prompts"]) / 120 < 0.25
    again = stage.batch(1, generator(5))
    assert all(torch.equal(again[k], v) if torch.is_tensor(v) else again[k] == v for k, v in batches[5].items())


def test_a_perfect_model_has_no_loss_and_a_teacher_is_what_it_is_held_to(run):
    _, settings, place = run
    learning = replace(settings.learning, teacher=TeacherSettings(model=str(place.model), until=3))
    stage = stage_of(replace(settings, learning=learning), place)
    batch = stage.batch(2, generator(1))
    x0, noise = batch["latents"], batch["noise"]
    stage.student.velocity = lambda x, t, prompts: FLOW.velocity(x0, noise).requires_grad_()
    loss, numbers = stage.loss(batch, generator())
    assert float(loss) < 1e-9 and all(key.startswith("loss_t") for key in numbers)
    assert not batch["taught"].any(), "the teacher has left"
    for seed in range(20):  # until there are no given frames
        taught = stage.batch(0, generator(seed))
        if taught["taught"].all():
            break
    x0, noise = taught["latents"], taught["noise"]
    assert float(stage.loss(taught, generator())[0]) > 1e-4
    x = FLOW.add_noise(x0, noise, taught["t"])
    with torch.no_grad():
        expected = stage.teacher.velocity(x, taught["t"], taught["prompts"])
    stage.student.velocity = lambda x, t, prompts: expected.clone().requires_grad_()
    assert float(stage.loss(taught, generator())[0]) == 0.0


def test_training_calls_the_network_as_sampling_does(run):
    """One time a clip is the same function as one a token, and the softmax written out the same as the fused one."""
    _, settings, place = run
    stage = stage_of(replace(settings, learning=replace(settings.learning, plain_attention=True)), place, place.model)
    for p in stage.student.network.parameters():  # gates that start at zero would hide everything
        torch.nn.init.normal_(p, std=0.1, generator=generator(p.numel()))
    x, t = torch.randn(2, 4, 3, 8, 8, generator=generator()), torch.tensor([0.3, 0.6])
    prompts = ["a red ball rolls left", "a blue cube on the snow"]
    with torch.no_grad():
        with stage._computing(3):
            ours = stage.student.velocity(x, t, prompts)
        conditions = stage.student.of_shape(x)
        conditions.exact = True
        conditions.texts = {False: stage.backbone.encode_texts(prompts)}
        theirs = stage.backbone.velocity(x, t, conditions)
    assert float(theirs.std()) > 1e-3
    torch.testing.assert_close(ours, theirs.to(ours.dtype), atol=1e-4, rtol=1e-3)


def test_layers_of_space_and_of_time_learn_apart(run):
    kind, settings, place = run
    for train in ("spatial", "temporal"):
        told = replace(settings, learning=replace(settings.learning, train=train, train_text=False))
        if kind != "unet":
            with pytest.raises(ValueError, match="no layers of its own for time"):
                stage_of(told, place)
            continue
        stage = stage_of(told, place)
        learns = {key: p.requires_grad for key, p in stage.modules["unet"].named_parameters()}
        assert {("motion_modules" in key) == (train == "temporal") for key, yes in learns.items() if yes} == {True}
        assert any(learns.values()) and not all(learns.values())


def test_a_fresh_unet_makes_pictures_frame_by_frame():
    unet = build_network(NETWORKS["unet"], 4, 16, 48, (7, 8, 8), 0)
    torch.nn.init.normal_(unet.conv_out.weight, std=0.1, generator=generator())
    x, text = torch.randn(1, 4, 3, 8, 8, generator=generator()), torch.randn(1, 5, 16, generator=generator())
    with torch.no_grad():
        whole = unet(x, 500, text.repeat(3, 1, 1), return_dict=False)[0]
        apart = [unet(x[:, :, i : i + 1], 500, text, return_dict=False)[0] for i in range(3)]
    torch.testing.assert_close(whole, torch.cat(apart, 2), atol=1e-5, rtol=1e-4)


def test_checkpointed_gradients_are_the_same_and_reach_the_text_encoder_where_it_learns(run):
    _, settings, place = run
    gradients = []
    for checkpointing in (False, True):
        network = replace(settings.network, gradient_checkpointing=checkpointing)
        learning = replace(settings.learning, train_text=True)
        stage = stage_of(replace(settings, network=network, learning=learning), place)
        assert stage.student.network.is_gradient_checkpointing == checkpointing
        for p in stage.student.network.parameters():  # gates that start at zero let nothing through
            torch.nn.init.normal_(p, std=0.1, generator=generator(p.numel()))
        stage.student.network.train()
        stage.loss(stage.batch(0, generator(1)), generator())[0].backward()
        gradients.append([p.grad for p in stage.modules["text_encoder"].parameters()])
        assert all(float(g.abs().sum()) > 0 for g in gradients[-1])
    torch.testing.assert_close(*gradients)


def test_a_text_encoder_that_gets_no_gradients_is_refused(run):
    _, settings, place = run
    stage = stage_of(replace(settings, learning=replace(settings.learning, train_text=True)), place)
    stage.backbone.text_inputs = torch.no_grad()(stage.backbone.text_inputs)
    with pytest.raises(ValueError, match="reads prompts without gradients; set train_text to false"):
        stage.loss(stage.batch(0, generator(1)), generator())


def test_resumed_training_equals_an_unbroken_one(run, tmp_path):
    _, settings, place = run
    trainers = {}
    for folder, each in (("resumed", (1, 3)), ("unbroken", (3,))):
        for steps in each:
            trainer = replace(settings.trainer, steps=steps, schedule="constant", decay=1e-6)
            trainers[folder] = Trainer(stage_of(settings, place), trainer, tmp_path / folder)
            trainers[folder].run()
    resumed, unbroken = (trainers[name].stage for name in ("resumed", "unbroken"))
    for name, module in unbroken.modules.items():
        for (key, a), b in zip(module.state_dict().items(), resumed.modules[name].state_dict().values(), strict=True):
            assert torch.equal(a, b), f"{name}.{key}"


def test_the_model_folder_loads_in_diffusers_and_holds_the_average(run):
    import diffusers

    kind, settings, place = run
    stage = stage_of(settings, place)
    for name, module in stage.modules.items():
        load_averaged(module, place.own / "checkpoints" / "step-00000002", name)
        loaded = type(module).from_pretrained(place.model / name, dtype=torch.float32).state_dict()
        for key, value in module.state_dict().items():
            torch.testing.assert_close(loaded[key].float(), value, atol=1e-2, rtol=1e-2)
    if kind == "wan":  # the other two pipelines ask their autoencoder for what kinema's has not
        pipeline = diffusers.WanPipeline.from_pretrained(place.model, dtype=torch.float32)
        size = dict(height=128, width=128, num_frames=5, num_inference_steps=1, max_sequence_length=48)
        assert pipeline("a red ball", **size, output_type="pt").frames.shape == (1, 5, 3, 128, 128)
    card = json.loads((place.model / "card.json").read_text())
    assert card["training"]["objective"] == {"wan": "flow", "cogvideox": "v", "unet": "v"}[kind]
    assert ("given" in card) == (kind == "wan")
    loaded = load(place.model)
    assert kind != "wan" or (loaded.takes_last_image and "any" in loaded.learned_frames)


def test_a_training_goes_on_from_another_and_its_card_tells(run, tmp_path):
    _, settings, place = run
    told = replace(settings, start_from=str(place.model), text=None, parts_from=str(place.model))
    again = replace(place, folder=tmp_path)
    (tmp_path / "latents").symlink_to(place.folder / "latents")
    train_video_model(told, again, say=lambda _: None)
    card = json.loads((again.model / "card.json").read_text())
    assert [part["steps"] for part in card["training"]["parts"]] == [2] and card["training"]["steps"] == 2


def test_a_fresh_model_of_other_settings_is_not_taken_for_this_one(run):
    _, settings, place = run
    told = replace(settings, network=replace(settings.network, num_layers=2))
    with pytest.raises(ValueError, match="was made with another network; use another folder"):
        train_video_model(told, place, say=lambda _: None)


def test_a_running_training_can_be_exported(run, tmp_path):
    _, settings, place = run
    out = export_checkpoint(settings, place, tmp_path / "preview")
    card = json.loads((out / "card.json").read_text())
    assert card["training"]["steps"] == 2 and card["training"]["clips_seen"] == 4
    assert "CPU thread" in card["training"]["hardware"]
    name = next(iter(stage_of(settings, place).modules))
    ours, theirs = ((p / name / "diffusion_pytorch_model.safetensors").read_bytes() for p in (out, place.model))
    assert ours == theirs
    assert not any(str(place.folder) in p.read_text() for p in out.rglob("*.json")), "the model tells where it was made"


@pytest.mark.parametrize(
    "sizes, says",
    [
        (dict(num_layers=0), "num_layers is 0; use 1 or more"),
        (dict(attention_head_dim=13), "attention_head_dim is 13; kind 'wan' takes multiples of 2"),
        (dict(kind="cogvideox", attention_head_dim=24), "kind 'cogvideox' takes multiples of 16"),
        (dict(kind="unet", block_out_channels=(60, 96)), r"block_out_channels are \[60, 96\]"),
        (dict(kind="unet", block_out_channels=(64, 96), num_attention_heads=5), r"num_attention_heads \(5\)"),
    ],
)
def test_sizes_that_no_network_has_are_refused_with_the_recipe(sizes, says):
    with pytest.raises(ValueError, match=says):
        NetworkSettings(**sizes)


def test_what_a_model_cannot_learn_is_refused_before_clips_are_drawn(run, tmp_path):
    kind, _, place = run
    other = tmp_path / "other"
    AutoencoderKLKinema(widths=(8, 8, 8), z_dim=5, decoder_depths=(1, 1, 1)).save_pretrained(other / "vae")
    backbone = load(place.model, dtype="float32")
    check_learning(LearningSettings(teacher=TeacherSettings(model=str(place.folder / "start"))), backbone)
    with pytest.raises(ValueError, match="has another autoencoder"):
        check_learning(LearningSettings(teacher=TeacherSettings(model=str(other))), backbone)
    if kind != "unet":
        with pytest.raises(ValueError, match="no layers of its own for time"):
            check_learning(LearningSettings(train="temporal"), backbone)
    if kind != "wan":
        with pytest.raises(ValueError, match="set given_share to 0"):
            check_learning(LearningSettings(given_share=0.1), backbone)
