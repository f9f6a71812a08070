"""Which stages a system has, and what stage 3 trains."""

import pytest
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
