"""Starting from another model's weights."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from fewview.bundle import load_bundle
from fewview.system import build_networks
from fewview.training import train
from fewview.training.start import fingerprint, keep_share, start_from


def test_same_sizes_start_from_every_weight(tiny_run):
    known = load_bundle(tiny_run / "model")
    networks = build_networks(known.config)
    assert fingerprint(networks) != fingerprint(known.networks)
    counts = start_from(networks, known.networks)
    assert all(copied == there for copied, there in counts.values())
    assert fingerprint(networks) == fingerprint(known.networks)


def test_weights_of_another_shape_stay_fresh(tiny_run):
    known = load_bundle(tiny_run / "model")
    wider = replace(known.config, autoencoder=replace(known.config.autoencoder, latent_channels=3))
    networks = build_networks(wider)
    fresh = networks.autoencoder.decoder[0].weight.clone()
    counts = start_from(networks, known.networks)
    assert torch.equal(networks.autoencoder.decoder[0].weight, fresh)
    first = "encoder.0.weight"
    assert torch.equal(
        networks.autoencoder.state_dict()[first], known.networks.autoencoder.state_dict()[first]
    )
    copied, there = counts["autoencoder"]
    assert there - copied == 3  # last weight and bias of the encoder, first weight of the decoder


def test_a_model_that_shares_no_weights_is_refused(tiny_run):
    known = load_bundle(tiny_run / "model").networks
    alone = build_networks(load_bundle(tiny_run / "model").config)
    for module in known.modules().values():
        for part in module.modules():
            for name, value in list(part.named_parameters(recurse=False)):
                setattr(part, name, torch.nn.Parameter(torch.zeros(*value.shape, 2)))
    with pytest.raises(ValueError, match="shares no weights"):
        start_from(alone, known)


def test_a_run_remembers_what_it_started_from(tiny_config, tiny_store, tiny_run, tmp_path):
    model = tiny_run / "model"
    train(tiny_config, tiny_store, tmp_path / "run", stage="autoencoder", start=model)
    with pytest.raises(ValueError, match="another config or start"):
        train(tiny_config, tiny_store, tmp_path / "run", stage="autoencoder", resume=True)
    train(tiny_config, tiny_store, tmp_path / "run", stage="alignment", start=model, resume=True)


def test_a_started_run_begins_at_the_weights_it_was_given(
    tiny_config, tiny_store, tiny_run, tmp_path
):
    frozen = tiny_config.read_text().replace("num_steps = 4", "num_steps = 1\nlearning_rate = 0.0")
    tiny_config.write_text(frozen)
    train(tiny_config, tiny_store, tmp_path / "run", start=tiny_run / "model")
    files = (run / "model" / "weights.safetensors" for run in (tiny_run, tmp_path / "run"))
    begun, ended = map(load_file, files)
    assert all(torch.equal(ended[name], value) for name, value in begun.items())  # -0 is 0


def test_a_share_of_the_start_stays_in_the_final_weights(
    tiny_config, tiny_store, tiny_run, tmp_path
):
    trained = tmp_path / "trained"
    train(tiny_config, tiny_store, trained, start=tiny_run / "model")
    text = tiny_config.read_text().replace("[training]\n", "[training]\nstart_share = 0.25\n")
    tiny_config.write_text(text)
    for resume in (False, True):  # going on from a finished run changes nothing
        mixed = tmp_path / "mixed"
        train(tiny_config, tiny_store, mixed, start=tiny_run / "model", resume=resume)
        old, new, both = (
            load_file(run / "model" / "weights.safetensors") for run in (tiny_run, trained, mixed)
        )
        assert any(not torch.equal(old[name], new[name]) for name in new)
        for name, value in both.items():
            wanted = 0.25 * old[name].double() + 0.75 * new[name].double()
            torch.testing.assert_close(value.double(), wanted, rtol=1e-2, atol=1e-6)


def test_equal_weights_stay_and_other_shapes_are_left(tiny_run):
    known = load_bundle(tiny_run / "model")
    same = load_bundle(tiny_run / "model").networks
    keep_share(same, known.networks, 0.3)
    for name, module in same.modules().items():
        own, given = module.state_dict(), known.networks.modules()[name].state_dict()
        assert all(torch.equal(own[key], value) for key, value in given.items())
    wider = replace(known.config, autoencoder=replace(known.config.autoencoder, latent_channels=3))
    networks = build_networks(wider)
    weight = networks.autoencoder.decoder[0].weight.clone()
    keep_share(networks, known.networks, 0.3)
    assert torch.equal(networks.autoencoder.decoder[0].weight, weight)


def test_a_share_needs_a_start_and_is_one(tiny_config, tiny_store, tmp_path):
    text = tiny_config.read_text()
    tiny_config.write_text(text.replace("[training]\n", "[training]\nstart_share = 0.5\n"))
    with pytest.raises(ValueError, match=r"start_share = 0\.5 needs --start MODEL"):
        train(tiny_config, tiny_store, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    tiny_config.write_text(text.replace("[training]\n", "[training]\nstart_share = 1.0\n"))
    with pytest.raises(ValueError, match="below 1, got 1"):
        train(tiny_config, tiny_store, tmp_path / "run", start="fewview-64")
