"""Model folders: what is missing or damaged is named."""

import shutil

import pytest
import torch

from fewview.bundle import bundled_models, load_bundle, save_bundle


@pytest.fixture
def model(tiny_run, tmp_path):
    return shutil.copytree(tiny_run / "model", tmp_path / "model")


@pytest.mark.parametrize("name", ["config.toml", "weights.safetensors", "card.md"])
def test_a_missing_file_is_named(model, name):
    (model / name).unlink()
    with pytest.raises(ValueError, match=f"{name} is missing"):
        load_bundle(model)


def test_damaged_weights_are_named(model):
    weights = model / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"weights\.safetensors: damaged"):
        load_bundle(model)


def test_weights_of_another_system_are_refused(model):
    config = model / "config.toml"
    config.write_text(
        config.read_text().replace("condition_channels = 4", "condition_channels = 8")
    )
    with pytest.raises(ValueError, match="do not fit"):
        load_bundle(model)


def test_an_unknown_key_in_a_model_is_named(model):
    config = model / "config.toml"
    config.write_text(config.read_text().replace("[grid]", "[grid]\nsizes = 3"))
    with pytest.raises(ValueError, match=r"grid\.sizes"):
        load_bundle(model)


def test_an_unknown_model_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="neither a folder nor a bundled model"):
        load_bundle("no-such-model")


def test_a_saved_model_loads_with_the_same_weights(model, tmp_path):
    first = load_bundle(model)
    save_bundle(tmp_path / "copy", first.config, first.networks, first.card)
    second = load_bundle(tmp_path / "copy")
    assert second.config == first.config
    assert second.networks.latent_scale == first.networks.latent_scale
    for one, other in zip(
        first.networks.denoiser.parameters(), second.networks.denoiser.parameters(), strict=True
    ):
        assert torch.equal(one, other)


def test_every_bundled_model_loads_and_has_a_card_with_its_limits():
    for name in bundled_models():
        assert "not a medical device" in load_bundle(name).card
