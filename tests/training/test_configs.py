"""Every training configuration that is committed can be read and trained."""

import tomllib
from pathlib import Path

import pytest

from fewview import config
from fewview.experiment.config import ExperimentConfig
from fewview.experiment.segmentation_config import SegmentationConfig
from fewview.training.config import load_run

CONFIGS = Path(__file__).parents[2] / "configs"
HOW = (
    "# fewview train configs/",
    "# fewview experiment",
    "# python bench",
    "# python -m fewview.experiment.segmentation configs/",
)


@pytest.mark.parametrize(
    "path", sorted(CONFIGS.rglob("*.toml")), ids=lambda path: str(path.relative_to(CONFIGS))
)
def test_a_committed_config_loads_and_says_how_it_is_run(path):
    if path.name.startswith("experiment-"):
        assert config.load(path, ExperimentConfig).methods
    elif path.name.startswith("segmentation-"):
        assert config.load(path, SegmentationConfig).arms
    else:
        assert load_run(path).system.name
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith(HOW)


CLSDM = {
    "system.diffusion_target": "latent",
    "system.condition": "views",
    "system.consistency_steps": 0,
    "system.grid": {"size": 128, "extent_mm": 320.0, "low_hu": -1000.0, "high_hu": 1500.0},
    "system.views.preset": "x2ct",
    "system.views.num_views": [2],
    "system.views.sod_mm": [541.0, 541.0],
    "system.views.detector_mm": [408.0, 408.0],
    "system.autoencoder.latent_channels": 4,
    "system.autoencoder.width": 32,
    "system.autoencoder.multipliers": [1, 2, 4, 8],
    "system.view_encoder.lifting": "replicate",
    "system.denoiser.width": 32,
    "system.denoiser.multipliers": [1, 2, 3, 4],
    "system.noise": {"prediction": "epsilon", "beta_start": 0.0015, "beta_end": 0.0155},
    "system.sampler.kind": "dpmpp",
    "system.sampler.nfe": 50,
    "training.autoencoder.batch_size": 8,
    "training.autoencoder.learning_rate": 1e-4,
    "training.autoencoder.betas": [0.5, 0.9],
    "training.autoencoder.discriminator_weight": 0.5,
    "training.autoencoder.discriminator_start": 5000,
    "training.alignment.batch_size": 8,
    "training.alignment.learning_rate": 3e-5,
    "training.alignment.reconstruction": "l1",
    "training.alignment.match_weight": 0.5,
    "training.diffusion.batch_size": 32,
    "training.diffusion.learning_rate": 5e-5,
    "training.diffusion.error": "l1",
}
"""What the paper and its code say of CLS-DM; the config's header names all that differs."""


@pytest.mark.parametrize("key", CLSDM)
def test_the_faithful_config_stays_faithful(key):
    value = tomllib.loads((CONFIGS / "clsdm-paper.toml").read_text(encoding="utf-8"))
    for name in key.split("."):
        value = value[name]
    assert value == CLSDM[key]


def test_the_weights_of_the_faithful_losses_are_its_sums_as_means():
    run = load_run(CONFIGS / "clsdm-paper.toml")
    voxels, latents = 128**3, 4 * 16**3
    assert run.training.autoencoder.kl_weight == pytest.approx(1e-4 * latents / voxels)
    assert run.training.alignment.contrast_weight == pytest.approx(1e4 / voxels, rel=0.01)
