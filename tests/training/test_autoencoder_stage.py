"""Stage 1: what is done once is not done again."""

import torch

from kinema.models.autoencoder import AutoencoderKLKinema
from kinema.training import autoencoder
from kinema.training.trainer import TrainerSettings


def test_a_finished_autoencoder_is_measured_once(tmp_path, monkeypatch):
    class Small:
        def __init__(self, settings):
            sizes = dict(z_dim=2, widths=(4, 4, 4), encoder_depths=None, decoder_depths=(1, 1, 1))
            self.vae = AutoencoderKLKinema(**sizes)
            self.modules = {"vae": self.vae}

        def batch(self, step, generator):
            return {"frames": torch.zeros(1, 3, 1, 16, 16)}

        def loss(self, batch, generator):
            return self.vae(batch["frames"]).sample.square().mean(), {}

        def sheet(self, path):
            pass

    measured = []
    monkeypatch.setattr(autoencoder, "AutoencoderStage", Small)
    monkeypatch.setattr(autoencoder, "measure_latents", lambda *_: None)
    monkeypatch.setattr(autoencoder, "evaluate", lambda _: measured.append(1) or {"psnr": 1.0, "clips": 1})
    settings = autoencoder.AutoencoderRecipe(trainer=TrainerSettings(steps=1))
    for _ in range(2):
        report = autoencoder.train_autoencoder(settings, tmp_path / "autoencoder", tmp_path / "vae")
        assert report.step == 1 and not report.interrupted
    assert len(measured) == 1 and (tmp_path / "vae" / "config.json").is_file()
