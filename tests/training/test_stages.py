"""Which stages a system has, and what stage 3 trains."""

import json

import pytest
import torch
from safetensors.torch import load_file

from fewview.bundle import load_bundle
from fewview.reconstruct import reconstruct
from fewview.training import train
from fewview.training.config import load_run
from fewview.xray.views import read_views

PLAIN = """
diffusion_target = "latent"
condition = "views"
estimate = false
[system.sampler]
num_samples = 1
nfe = 2
"""


@pytest.fixture
def plain_config(tiny_config):
    """A latent diffusion model without alignment."""
    text = tiny_config.read_text()
    stage_two = text[text.index("[training.alignment]") : text.index("[training.diffusion]")]
    text = text.replace(stage_two, "").replace('name = "tiny"\n', f'name = "tiny"{PLAIN}')
    tiny_config.write_text(text)
    return tiny_config


def test_without_alignment_the_views_are_learned_with_the_denoiser(
    plain_config, tiny_store, views_folder, tmp_path
):
    train(plain_config, tiny_store, tmp_path / "run")
    assert not (tmp_path / "run" / "alignment.safetensors").exists()
    tensors = load_file(tmp_path / "run" / "diffusion.safetensors")
    assert any(name.startswith("module.view_encoder.images") for name in tensors)
    model, views = load_bundle(tmp_path / "run" / "model"), read_views(views_folder)
    found = reconstruct(views, model=model)
    assert found.nfe == 2
    with pytest.raises(ValueError, match="no deterministic head"):
        reconstruct(views, model=model, nfe=0)


def test_an_estimate_needs_the_stage_that_trains_it(plain_config):
    text = plain_config.read_text()
    plain_config.write_text(text.replace("estimate = false\n", ""))
    with pytest.raises(ValueError, match="alignment stage"):
        load_run(plain_config)


def test_stage_three_learns_the_detail_and_nothing_else_of_the_views(
    tiny_config, tiny_store, tmp_path
):
    text = tiny_config.read_text()
    tiny_config.write_text(
        text.replace("condition_channels = 4\n", "condition_channels = 4\ndetail_channels = 4\n")
    )
    train(tiny_config, tiny_store, tmp_path / "run")
    before = load_file(tmp_path / "run" / "alignment.safetensors")
    after = load_file(tmp_path / "run" / "model" / "weights.safetensors")
    moved = {
        name
        for name, value in after.items()
        if name.startswith("view_encoder.")
        and (value.float() - before[f"average.{name}"].half().float()).abs().max() != 0
    }
    assert moved == {"view_encoder.detail_head.weight", "view_encoder.detail_head.bias"}


def learning_on(tiny_config, more: str):
    """The tiny config with these lines in stage 3."""
    text = tiny_config.read_text()
    tiny_config.write_text(text.replace("[training.diffusion]\n", f"[training.diffusion]\n{more}"))
    return tiny_config


def moved_parts(run) -> set[str]:
    """Parts of the view encoder that stage 3 has changed."""
    before = load_file(run / "alignment.safetensors")
    after = load_file(run / "diffusion.safetensors")
    return {
        name.split(".")[2]
        for name, value in after.items()
        if name.startswith("average.view_encoder.") and not torch.equal(value, before[name])
    }


def test_a_view_encoder_that_learns_on_keeps_its_estimate_by_its_own_error(
    tiny_config, tiny_store, tmp_path
):
    learning_on(tiny_config, "learns_views = true\nreconstruction_weight = 1.0\n")
    train(tiny_config, tiny_store, tmp_path / "run")
    moved = moved_parts(tmp_path / "run")
    assert {"images", "condition_head"} <= moved
    # Of the output nothing but the estimate's own error tells anything.
    assert "estimate_head" in moved
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    told = [entry for entry in map(json.loads, lines) if entry["stage"] == "diffusion"]
    assert any("val_estimate_db" in entry for entry in told)
    (last,) = [entry for entry in told if "voxel" in entry][-1:]
    assert last["loss"] == pytest.approx(last["denoising"] + last["voxel"], rel=1e-4)


def test_an_estimate_is_not_moved_to_make_the_residual_easier(tiny_config, tiny_store, tmp_path):
    # With next to no weight of its own, only the target and the condition could move it.
    learning_on(
        tiny_config, "learns_views = true\nreconstruction_weight = 1e-30\nweight_decay = 0.0\n"
    )
    text = tiny_config.read_text()
    told = 'name = "tiny"\ndiffusion_target = "residual"\ncondition = "views"\n'
    tiny_config.write_text(text.replace('name = "tiny"\n', told))
    train(tiny_config, tiny_store, tmp_path / "run")
    moved = moved_parts(tmp_path / "run")
    assert "condition_head" in moved
    assert "estimate_head" not in moved


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("learns_views = true\n", "forgets it"),
        ("reconstruction_weight = 1.0\n", "learns_views = true"),
        ("learns_views = true\nreconstruction_weight = -1.0\n", "0 or more"),
        ("learns_views = true\nreconstruction_weight = 1.0\nfixed_views = true\n", "fixed_views"),
    ],
)
def test_a_view_encoder_learns_on_only_where_that_makes_sense(tiny_config, more, message):
    with pytest.raises(ValueError, match=message):
        load_run(learning_on(tiny_config, more))


def test_without_stage_two_nothing_learns_on(plain_config):
    with pytest.raises(ValueError, match="leave learns_views out"):
        load_run(learning_on(plain_config, "learns_views = true\n"))
