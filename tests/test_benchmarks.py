"""What the benchmark scripts share: cutting a config to a trial, and taking over a stage 1."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fewview.training import train
from fewview.training.config import load_run

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "benchmarks" / "runs.py"

pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason="not a source checkout")


@pytest.fixture(scope="module")
def runs():
    specification = importlib.util.spec_from_file_location("runs", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*ablation/*.toml")), ids=str)
def test_a_trial_of_an_ablation_differs_in_steps_and_seed_alone(runs, path, tmp_path):
    trial = load_run(runs.config_of_run(path, 2, 3, tmp_path))
    whole = load_run(path)
    assert trial.system == whole.system
    assert (trial.training.seed, trial.training.num_examples) == (2, 8)
    assert trial.training.diffusion.num_steps == 3


@pytest.mark.parametrize("name", ["contrast", "reconstruction"])
def test_the_rows_of_the_losses_share_stage_one_and_stage_three(runs, name):
    both, other = (
        load_run(ROOT / "configs" / "ablation" / f"{one}.toml") for one in ("both", name)
    )
    assert runs.stage_one_of_config(both) == runs.stage_one_of_config(other)
    assert both.training.diffusion == other.training.diffusion
    assert both.system.denoiser == other.system.denoiser


def test_vanilla_diffusion_has_the_steps_of_both_stages_it_replaces_but_shares_all_else(runs):
    both, ldm = (load_run(ROOT / "configs" / "ablation" / f"{one}.toml") for one in ("both", "ldm"))
    assert runs.stage_one_of_config(both) == runs.stage_one_of_config(ldm)
    assert ldm.training.alignment is None
    whole, alone = ldm.training.diffusion, both.training.diffusion
    assert whole.num_steps > 1.7 * alone.num_steps
    shares = {"num_steps": 9, "steady_steps": 9, "cooldown_steps": 0}
    assert replace(whole, **shares) == replace(alone, **shares)
    assert both.system.denoiser == ldm.system.denoiser


def test_the_evidence_and_the_ablations_share_stage_two(runs):
    evidence, ablation = (
        load_run(ROOT / "configs" / name)
        for name in ("evidence/fewview.toml", "ablation/both.toml")
    )
    assert runs.stage_two_of_config(evidence) == runs.stage_two_of_config(ablation)


def test_rows_that_take_over_stage_two_differ_in_stage_three_alone(runs):
    folder = ROOT / "configs" / "xctdiff-ablation"
    shared, *others, copies = (
        load_run(folder / f"{name}.toml")
        for name in ("shared", "cross-attention", "epsilon", "copies")
    )
    for other in others:
        assert runs.stage_two_of_config(shared) == runs.stage_two_of_config(other)
    assert runs.stage_two_of_config(shared) != runs.stage_two_of_config(copies)


@pytest.mark.parametrize("name", ["separate", "cross-attention", "copies"])
def test_the_rows_of_xctdiff_share_stage_one(runs, name):
    folder = ROOT / "configs" / "xctdiff-ablation"
    shared, other = (load_run(folder / f"{one}.toml") for one in ("shared", name))
    assert runs.stage_one_of_config(shared) == runs.stage_one_of_config(other)
    assert shared.training == other.training


@pytest.mark.parametrize(
    ("name", "revive_every"), [("codes-8192", 20), ("codes-8192-unrevived", 0)]
)
def test_the_rows_of_8192_codes_differ_in_the_codebook_alone(name, revive_every):
    folder = ROOT / "configs" / "xctdiff-ablation"
    shared, other = (load_run(folder / f"{one}.toml") for one in ("shared", name))
    assert other.system.autoencoder == replace(shared.system.autoencoder, num_codes=8192)
    stage = replace(shared.training.autoencoder, revive_every=revive_every)
    assert replace(shared.training, autoencoder=stage) == other.training


def test_a_run_with_the_stage_one_of_another_equals_one_that_trained_its_own(
    runs, tiny_config, tiny_store, tiny_run, tmp_path
):
    stage = "[training.alignment]\n"
    text = tiny_config.read_text().replace(stage, stage + "contrast_weight = 0.0\n")
    tiny_config.write_text(text)
    train(tiny_config, tiny_store, tmp_path / "own")
    runs.take_stage_one(tiny_run, tiny_config, tmp_path / "taken")
    train(tiny_config, tiny_store, tmp_path / "taken", resume=True)
    own, taken = (
        load_file(tmp_path / name / "model" / "weights.safetensors") for name in ("own", "taken")
    )
    assert all(torch.equal(own[name], taken[name]) for name in own)
    tiny_config.write_text(text.replace("[training]\n", "[training]\nseed = 5\n"))
    runs.take_stage_one(tiny_run, tiny_config, tmp_path / "seed")
    assert (tmp_path / "seed" / "autoencoder.safetensors").is_file()
    assert not (tmp_path / "seed" / "latents.safetensors").exists(), "those of other copies"
    tiny_config.write_text(text.replace("latent_channels = 2", "latent_channels = 4"))
    with pytest.raises(ValueError, match="another stage 1"):
        runs.take_stage_one(tiny_run, tiny_config, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_run_with_the_stage_two_of_another_equals_one_that_trained_its_own(
    runs, tiny_config, tiny_store, tiny_run, tmp_path
):
    text = tiny_config.read_text()
    system = "[system]\n"
    tiny_config.write_text(text.replace(system, system + 'diffusion_target = "residual"\n'))
    train(tiny_config, tiny_store, tmp_path / "own")
    runs.take_stage_two(tiny_run, tiny_config, tmp_path / "taken")
    assert (tmp_path / "taken" / "alignment.safetensors").is_file()
    train(tiny_config, tiny_store, tmp_path / "taken", resume=True)
    own, taken = (
        load_file(tmp_path / name / "model" / "weights.safetensors") for name in ("own", "taken")
    )
    assert all(torch.equal(own[name], taken[name]) for name in own)
    tiny_config.write_text(text.replace("[training]\n", "[training]\nseed = 5\n"))
    with pytest.raises(ValueError, match="another stage 2"):
        runs.take_stage_two(tiny_run, tiny_config, tmp_path / "other")
    assert not (tmp_path / "other").exists()
