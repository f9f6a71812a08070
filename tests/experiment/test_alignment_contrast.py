"""A model whose projector never learned is measured with a warning, any other without."""

import pytest
import torch

from fewview.bundle import Bundle, load_bundle, save_bundle
from fewview.experiment.alignment import has_told_apart, main
from fewview.system import build_networks


@pytest.fixture
def bundle(tiny_run) -> Bundle:
    return load_bundle(tiny_run / "model")


def test_the_bundled_model_was_trained_by_contrast():
    assert has_told_apart(load_bundle())


def test_a_projector_as_training_begins_it_was_not(bundle):
    bundle.networks.projector.log_temperature.add_(0.1)
    assert has_told_apart(bundle)
    bundle.networks.projector = build_networks(bundle.config).projector
    assert not has_told_apart(bundle)


def test_the_command_says_that_such_figures_mean_nothing(bundle, tmp_path, capsys):
    for number, temperature in enumerate((-2.3, -2.9)):
        with torch.no_grad():
            bundle.networks.projector.log_temperature.fill_(temperature)
        folder = tmp_path / f"model-{number}"
        save_bundle(folder, bundle.config, bundle.networks, bundle.card)
        words = [str(folder), "--out", str(tmp_path / f"out-{number}"), "--num-views", "1"]
        assert main([*words, "--phantoms", "3", "--phantom-size", "16"]) == 0
        assert ("mean nothing" in capsys.readouterr().err) == (number == 0)
