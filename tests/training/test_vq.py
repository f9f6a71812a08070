"""XctDiff's stages on a tiny system: codes in stage 1, a quantized condition in stage 2."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fewview.bundle import load_bundle
from fewview.data.phantom import phantom
from fewview.models.codebook import Codebook
from fewview.models.unet import UnetDenoiser
from fewview.reconstruct import reconstruct
from fewview.training import train
from fewview.training.codes import quantized
from fewview.training.config import load_run
from fewview.training.diffusion import left_out, parts_to_learn, shows_itself
from fewview.training.source import TrainingSource
from fewview.training.system_config import AutoencoderStage, DiffusionStage
from fewview.xray.geometry import preset
from fewview.xray.views import drr

CONFIGS = Path(__file__).parents[2] / "configs"

XCTDIFF = """
[system]
name = "tiny-xctdiff"
diffusion_target = "latent"
condition = "views"
[system.grid]
size = 16
[system.views]
num_pixels = 16
num_views = [1]
num_views_weights = [1.0]
[system.autoencoder]
kind = "vq"
latent_channels = 4
width = 8
multipliers = [1, 2]
num_blocks = 1
num_codes = 16
[system.view_encoder]
kind = "progressive"
codebook = "own"
width = 8
multipliers = [1, 2]
num_blocks = 1
slice_channels = 4
condition_channels = 4
num_codes = 16
decoder_width = 8
[system.denoiser]
kind = "unet"
width = 8
multipliers = [1, 2]
num_blocks = 1
attention_levels = [1]
[system.sampler]
nfe = 2
num_samples = 1
[training]
num_examples = 4
[training.autoencoder]
num_steps = 8
batch_size = 2
log_every = 1
save_every = 4
revive_every = 2
validate_every = 8
slab_perceptual_weight = 0.01
discriminator_weight = 0.1
slice_discriminator = true
discriminator = {width = 4, num_strided = 1}
[training.alignment]
num_steps = 4
batch_size = 2
log_every = 1
contrast_weight = 0.0
num_negatives = 0
revive_every = 2
[training.diffusion]
num_steps = 2
batch_size = 2
log_every = 1
fixed_views = true
"""


@pytest.fixture
def xctdiff(tmp_path):
    path = tmp_path / "xctdiff.toml"
    path.write_text(XCTDIFF)
    return path


def lines(run, stage: str) -> list[dict]:
    text = (run / "metrics.jsonl").read_text()
    return [entry for entry in map(json.loads, text.splitlines()) if entry["stage"] == stage]


def test_a_system_with_codebooks_trains_and_tells_the_use_of_its_codes(
    xctdiff, tiny_store, tmp_path
):
    train(xctdiff, tiny_store, tmp_path / "run")
    first, second = (lines(tmp_path / "run", stage) for stage in ("autoencoder", "alignment"))
    for entry in (first[0], second[0]):
        assert 0.0 < entry["code_share"] <= 1.0 <= entry["perplexity"] <= 16.0
        assert entry["quantization"] > 0.0
    assert first[0]["slab_perceptual"] > 0.0
    held_out = next(entry for entry in first if "val_psnr_db" in entry)
    assert 0.0 < held_out["val_code_share"] <= 1.0 <= held_out["val_perplexity"]
    model = load_bundle(tmp_path / "run" / "model")
    assert model.networks.autoencoder.codebook.vectors.abs().max() <= 1.0
    own = model.networks.view_encoder.codebook.vectors
    assert not torch.equal(own, model.networks.autoencoder.codebook.vectors)


def test_both_discriminators_learn(xctdiff, tiny_store, tmp_path):
    train(xctdiff, tiny_store, tmp_path / "run", stage="autoencoder")
    moments = load_file(tmp_path / "run" / "autoencoder.safetensors")
    run = load_run(xctdiff)
    assert run.training.autoencoder.slice_discriminator
    names = [name for name in moments if name.startswith("module.")]
    for part in ("discriminator", "slice_discriminator"):
        weights = [name for name in names if f"module.{part}." in name and name.endswith("weight")]
        assert weights
        for name in weights:
            average = moments[name.replace("module.", "average.", 1)]
            assert not torch.equal(moments[name], average), name


def test_a_system_of_one_view_is_validated_with_one(xctdiff, tiny_store, tmp_path, monkeypatch):
    asked, validation = [], TrainingSource.validation

    def counted(self, num_views=2):
        asked.append(num_views)
        return validation(self, num_views)

    monkeypatch.setattr(TrainingSource, "validation", counted)
    train(xctdiff, tiny_store, tmp_path / "run")
    assert asked == [1, 1]  # stage 1 looks at no view


def test_a_shared_codebook_stays_as_stage_one_left_it(xctdiff, tiny_store, tmp_path):
    text = XCTDIFF.replace('codebook = "own"', 'codebook = "shared"')
    xctdiff.write_text(text.replace("num_codes = 16", "num_codes = 200"))  # most of them dead
    train(xctdiff, tiny_store, tmp_path / "run")
    learned = load_file(tmp_path / "run" / "autoencoder.safetensors")
    weights = load_file(tmp_path / "run" / "model" / "weights.safetensors")
    expected = learned["average.autoencoder.codebook.vectors"].half()
    for part in ("autoencoder", "view_encoder"):
        assert torch.equal(weights[f"{part}.codebook.vectors"], expected)


def test_revival_goes_on_after_a_stop_as_if_there_had_been_none(
    xctdiff, tiny_store, tmp_path, monkeypatch
):
    train(xctdiff, tiny_store, tmp_path / "whole", stage="autoencoder")

    def stop(stage, step, num_steps, shown):
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(xctdiff, tiny_store, tmp_path / "parts", stage="autoencoder", report=stop)
    train(xctdiff, tiny_store, tmp_path / "parts", stage="autoencoder", resume=True)
    whole, parts = (
        load_file(tmp_path / run / "autoencoder.safetensors") for run in ("whole", "parts")
    )
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_micro_batches_revive_the_same_codes_and_weigh_the_discriminators_alike(
    xctdiff, tiny_store, tmp_path
):
    for run, accumulate in (("one", 1), ("two", 2)):
        more = f"accumulate = {accumulate}\n[training.alignment]"
        text = XCTDIFF.replace("[training.alignment]", more)
        xctdiff.write_text(text.replace("num_steps = 8", "num_steps = 3"))
        train(xctdiff, tiny_store, tmp_path / run, stage="autoencoder")
    one, two = (load_file(tmp_path / run / "autoencoder.safetensors") for run in ("one", "two"))
    name = "module.autoencoder.codebook."
    assert torch.equal(one[f"{name}used"], two[f"{name}used"])
    torch.testing.assert_close(one[f"{name}vectors"], two[f"{name}vectors"], atol=1e-5, rtol=0)
    told = [
        [line["loss"] for line in lines(tmp_path / run, "autoencoder") if "loss" in line]
        for run in ("one", "two")
    ]
    assert told[1] == pytest.approx(told[0], abs=1e-5)


def test_a_code_that_another_process_chose_is_not_dead():
    class OfTwo(TrainingSource):
        def gathered(self, values):
            """The other process chose code 5."""
            return torch.cat([values, torch.eye(8)[5:6]])

    codebook, source = Codebook(8, 2), OfTwo.__new__(OfTwo)
    config = AutoencoderStage(num_steps=10, revive_every=5)
    found, _ = quantized(codebook, torch.rand(1, 2, 2, 2, 2), config, source, range(1), 12, 1)
    expected = {5, *found.indices.flatten().tolist()}
    assert set(codebook.used.nonzero()[:, 0].tolist()) == expected


@pytest.mark.slow
def test_two_processes_revive_the_codes_that_one_does(xctdiff, tiny_store, tmp_path):
    start = XCTDIFF.index("discriminator_weight")
    text = XCTDIFF[:start] + XCTDIFF[XCTDIFF.index("[training.alignment]") :]
    xctdiff.write_text(text)  # without discriminators, whose balance is not what is asked for here
    train(xctdiff, tiny_store, tmp_path / "one")
    words = [sys.executable, "-m", "fewview", "train", xctdiff, "--data", tiny_store]
    done = subprocess.run(
        [*words, "--out", tmp_path / "two", "--devices", "2"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for stage in ("autoencoder", "alignment"):
        one, two = (load_file(tmp_path / run / f"{stage}.safetensors") for run in ("one", "two"))
        for name, value in one.items():
            if name.startswith("module."):
                torch.testing.assert_close(value, two[name], atol=1e-5, rtol=0, msg=name)


def test_a_condition_that_the_estimate_is_decoded_from_needs_no_more_learning(xctdiff):
    from fewview.system import build_networks

    run = load_run(xctdiff)
    training, networks = run.training, build_networks(run.system)
    learned = parts_to_learn(training.diffusion, run.system, networks, training.alignment)
    assert list(learned) == ["denoiser"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"revive_every": -1}, "0 or more"),
        ({"slab_perceptual_weight": -1.0}, "0 or more"),
        ({"slice_discriminator": True}, "needs a discriminator_weight"),
    ],
)
def test_settings_that_cannot_train_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        AutoencoderStage(num_steps=1, **settings)


def test_guidance_needs_examples_without_condition(xctdiff):
    text = XCTDIFF.replace("nfe = 2\n", "nfe = 2\nguidance = 2.0\n")
    xctdiff.write_text(text)
    with pytest.raises(ValueError, match="condition_dropout"):
        load_run(xctdiff)
    xctdiff.write_text(text + "condition_dropout = 0.1\n")
    assert load_run(xctdiff).system.sampler.guidance == 2.0


def test_stage_three_trains_with_all_that_xctdiff_has_and_the_model_reconstructs(
    xctdiff, tiny_store, tmp_path, monkeypatch
):
    """Cross-attention, self-conditioning, dropped conditions and guidance."""
    text = XCTDIFF.replace("nfe = 2\n", "nfe = 2\nguidance = 2.0\n").replace(
        "attention_levels = [1]",
        'attention_levels = [1]\nprior = "cross-attention"\nself_conditioning = true',
    )
    text = text.replace("num_steps = 2", "num_steps = 4")
    xctdiff.write_text(text + "condition_dropout = 0.5\n")
    told, forward = [], UnetDenoiser.forward

    def noted(self, noisy, time, condition, previous=None):
        if self.training:
            told.append((condition.flatten(1).any(dim=1).tolist(), previous is not None))
        return forward(self, noisy, time, condition, previous)

    monkeypatch.setattr(UnetDenoiser, "forward", noted)
    train(xctdiff, tiny_store, tmp_path / "run")
    without = [not one for conditions, _ in told for one in conditions]
    assert {True, False} == set(without)  # some conditions are dropped, not all
    shown = [shows_itself(0, step) for step in range(4)]
    # A step that shows the denoiser its own estimate calls it twice, first without one.
    assert [previous for _, previous in told] == [
        after for step in shown for after in ((False, True) if step else (False,))
    ]
    bundle = load_bundle(tmp_path / "run" / "model")
    assert bundle.networks.guidable
    views = drr(phantom(5, size=16).volume, [preset("chest", size=16)])
    volumes = [
        reconstruct(views, model=bundle, nfe=4, guidance=scale).volume.hu
        for scale in (None, 2.0, 1.0, 0.0)
    ]
    assert np.array_equal(volumes[0], volumes[1])  # the model's own
    assert not np.array_equal(volumes[1], volumes[2])
    assert not np.array_equal(volumes[2], volumes[3])
    with pytest.raises(ValueError, match="even"):
        reconstruct(views, model=bundle, nfe=3)


def test_a_model_that_was_never_without_condition_is_not_guided(tiny_run):
    views = drr(phantom(5, size=16).volume, [preset("chest", size=16)])
    model = tiny_run / "model"
    with pytest.raises(ValueError, match="guidance must be 1, got 2"):
        reconstruct(views, model=model, nfe=2, guidance=2.0)
    same = reconstruct(views, model=model, nfe=2, guidance=1.0)
    assert np.array_equal(same.volume.hu, reconstruct(views, model=model, nfe=2).volume.hu)


def test_which_examples_go_without_condition_does_not_depend_on_the_micro_batch():
    config = DiffusionStage(num_steps=1, condition_dropout=0.3)
    whole = left_out(config, 0, 5, range(1000))
    assert 0.25 < whole.float().mean() < 0.35
    assert torch.equal(left_out(config, 0, 5, range(10, 20)), whole[10:20])
    assert not left_out(DiffusionStage(num_steps=1), 0, 5, range(1000)).any()


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("shared", set()),
        ("separate", {"view_encoder"}),
        ("cross-attention", {"denoiser"}),
        ("copies", {"view_encoder"}),
        ("epsilon", {"noise"}),
    ],
)
def test_a_row_of_the_ablation_differs_from_the_base_in_one_part(name, changed):
    base = load_run(CONFIGS / "xctdiff-64.toml")
    shared, row = (
        load_run(CONFIGS / "xctdiff-ablation" / f"{one}.toml") for one in ("shared", name)
    )
    if name == "epsilon":
        assert replace(row.training, diffusion=shared.training.diffusion) == shared.training
    else:
        assert row.training == shared.training
    own, others = vars(row.system), vars(base.system)
    assert {key for key in own if own[key] != others[key]} == {"name", *changed}
