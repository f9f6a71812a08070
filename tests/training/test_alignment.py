"""Stage 2 with each of its terms on and off, through whole runs of the tiny system."""

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fewview.bundle import load_bundle
from fewview.models.view_encoder import ViewEncoder, ViewEncoding
from fewview.reconstruct import reconstruct
from fewview.training import alignment, diffusion, train
from fewview.training.alignment import matched_figures, voxel_error
from fewview.training.config import load_run
from fewview.training.loop import Averages
from fewview.training.system_config import AlignmentStage
from fewview.xray.views import read_views

FULL = """
queue_size = 3
local_weight = 0.5
local_positions = 16
levels = 2
"""
ALONE = """
diffusion_target = "latent"
condition = "views"
estimate = false
[system.sampler]
num_samples = 1
nfe = 2
"""


def with_stage(path: Path, lines: str, *, system: str = "") -> Path:
    """The tiny config with further lines in its second stage."""
    text = path.read_text().replace("[training.alignment]\n", f"[training.alignment]\n{lines}\n")
    path.write_text(text.replace('name = "tiny"\n', f'name = "tiny"\n{system}'))
    return path


def lines_of(run: Path) -> list[dict[str, float]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if line["stage"] == "alignment"]


class Stopped(Exception):
    """Stands for a kill."""


def stop_at_three(stage: str, done: int, _steps: int, _shown: str) -> None:
    if (stage, done) == ("alignment", 3):
        raise Stopped


@pytest.mark.parametrize("against", ["positions", "both"])
def test_memory_levels_and_local_terms_resume_exactly(against, tiny_config, tiny_store, tmp_path):
    config = with_stage(tiny_config, FULL + f'local_negatives = "{against}"')
    train(config, tiny_store, tmp_path / "whole")
    with pytest.raises(Stopped):
        train(config, tiny_store, tmp_path / "broken", report=stop_at_three)
    train(config, tiny_store, tmp_path / "broken", resume=True)
    one, other = (
        load_file(tmp_path / name / "alignment.safetensors") for name in ("whole", "broken")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert {"module.memory.aligned", "module.coarser.0.log_temperature"} <= set(one)
    moved = {name for name in one if name.endswith("exp_avg")}
    weights = {name for name in one if name.startswith("module.") and "memory" not in name}
    assert len(moved) == len(weights)
    assert [name for name in moved if one[name].abs().max() == 0] == []
    assert (one["module.memory.case"] >= 0).all()
    assert {"contrast", "match", "local", "spread"} <= set(lines_of(tmp_path / "whole")[0])


def test_contrast_alone_makes_no_estimate_and_the_aligned_views_condition_the_denoiser(
    tiny_config, tiny_store, views_folder, tmp_path, monkeypatch
):
    asked, forward = [], ViewEncoder.forward

    def noting(self, images, rays, *, with_estimate=True):
        asked.append(with_estimate)
        return forward(self, images, rays, with_estimate=with_estimate)

    monkeypatch.setattr(ViewEncoder, "forward", noting)
    config = with_stage(tiny_config, "reconstruction_weight = 0.0", system=ALONE)
    train(config, tiny_store, tmp_path / "run")
    assert asked
    assert not any(asked)
    first, *_, last = lines_of(tmp_path / "run")
    assert "voxel" not in first
    assert "contrast" in first
    assert set(last) == {"stage", "step", "val_alignment"}
    aligned = load_file(tmp_path / "run" / "alignment.safetensors")
    kept = load_file(tmp_path / "run" / "model" / "weights.safetensors")
    name = "view_encoder.condition_head.2.weight"
    assert torch.equal(kept[name], aligned[f"average.{name}"].half())
    learned = load_file(tmp_path / "run" / "diffusion.safetensors")
    assert not any("view_encoder" in name for name in learned)
    found = reconstruct(read_views(views_folder), model=load_bundle(tmp_path / "run" / "model"))
    assert found.nfe == 2


def test_without_contrast_the_denoiser_teaches_the_condition_and_nothing_else_of_the_views(
    tiny_config, tiny_store, tmp_path
):
    train(with_stage(tiny_config, "contrast_weight = 0.0"), tiny_store, tmp_path / "run")
    assert "contrast" not in lines_of(tmp_path / "run")[0]
    before = load_file(tmp_path / "run" / "alignment.safetensors")
    after = load_file(tmp_path / "run" / "model" / "weights.safetensors")
    changed = {
        name.removeprefix("view_encoder.").split(".")[0]
        for name, value in after.items()
        if name.startswith("view_encoder.")
        and not torch.equal(value, before[f"average.{name}"].half())
    }
    assert changed == {"condition_head"}


REPLICATE = """
kind = "replicate"
width = 4
reduction = 4
condition_channels = 4
"""


@pytest.mark.parametrize(("kind", "layers"), [("rays", "2"), ("replicate", "0 1 3 4 6")])
def test_without_contrast_every_layer_of_the_conditions_head_learns_with_the_denoiser(
    kind, layers, tiny_config, tiny_store, tmp_path
):
    text = tiny_config.read_text()
    table = text[text.index("[system.view_encoder]") : text.index("[system.denoiser]")]
    if kind == "replicate":
        tiny_config.write_text(text.replace(table, f"[system.view_encoder]{REPLICATE}"))
    train(with_stage(tiny_config, "contrast_weight = 0.0"), tiny_store, tmp_path / "run")
    before = load_file(tmp_path / "run" / "alignment.safetensors")
    after = load_file(tmp_path / "run" / "diffusion.safetensors")
    start = "module.condition_head."
    learned = {name.removeprefix(start): after[name] for name in after if name.startswith(start)}
    if kind == "rays":  # all but its first norm, under the names that checkpoints have had
        learned = {f"2.{name}": value for name, value in learned.items()}
    assert {name.split(".")[0] for name in learned} == set(layers.split())
    for name, value in learned.items():
        assert not torch.equal(value, before[f"average.view_encoder.condition_head.{name}"]), name


def test_a_view_encoder_that_says_nothing_is_warned_of_in_training(
    tiny_config, tiny_store, tmp_path, monkeypatch, caplog
):
    forward = ViewEncoder.forward

    def constant(self, images, rays, *, with_estimate=True):
        found = forward(self, images, rays, with_estimate=with_estimate)
        same = found.condition.mean(dim=0, keepdim=True).expand_as(found.condition)
        return ViewEncoding(same, found.estimate, found.detail)

    monkeypatch.setattr(ViewEncoder, "forward", constant)
    text = tiny_config.read_text()
    stage = text.index("[training.alignment]")
    tiny_config.write_text(
        text[:stage] + text[stage:].replace("num_steps = 4", "num_steps = 24\nwarmup_steps = 1", 1)
    )
    with caplog.at_level(logging.WARNING):
        for name in ("autoencoder", "alignment"):
            train(
                tiny_config, tiny_store, tmp_path / "run", stage=name, resume=name != "autoencoder"
            )
    assert sum("collapsed" in record.getMessage() for record in caplog.records) == 1


def test_views_that_come_alone_and_say_nothing_are_warned_of_too(
    tiny_config, tiny_store, tmp_path, monkeypatch, caplog
):
    forward = ViewEncoder.forward

    def constant(self, images, rays, *, with_estimate=True):
        found = forward(self, images, rays, with_estimate=with_estimate)
        return found._replace(condition=torch.ones_like(found.condition))

    monkeypatch.setattr(ViewEncoder, "forward", constant)
    text = tiny_config.read_text()
    stage = text.index("[training.alignment]")
    steps = "num_steps = 24\nwarmup_steps = 1\naccumulate = 2"
    tiny_config.write_text(text[:stage] + text[stage:].replace("num_steps = 4", steps, 1))
    for name in ("autoencoder", "alignment"):
        train(tiny_config, tiny_store, tmp_path / "run", stage=name, resume=name != "autoencoder")
    assert sum("encoded alike" in record.getMessage() for record in caplog.records) == 1
    spreads = [line["spread"] for line in lines_of(tmp_path / "run")[:-1]]
    assert 0.0 < max(spreads) < 0.01, "the projector learns between the cases"


def test_latents_that_are_no_number_end_the_run_with_a_line_on_the_loss(
    tiny_config, tiny_store, tmp_path, monkeypatch
):
    forward = ViewEncoder.forward

    def diverged(self, images, rays, *, with_estimate=True):
        found = forward(self, images, rays, with_estimate=with_estimate)
        return found._replace(condition=found.condition * torch.nan)

    monkeypatch.setattr(ViewEncoder, "forward", diverged)
    text = tiny_config.read_text()
    tiny_config.write_text(text.replace("latent_channels = 2", "latent_channels = 4"))
    with pytest.raises(ValueError, match="alignment: the loss is nan at step 0"):
        train(tiny_config, tiny_store, tmp_path / "run")


@pytest.mark.parametrize(
    ("aligned", "found"),
    [
        (lambda latent: latent, [1.0, 1.0, 1.0]),
        (lambda latent: latent.roll(1, dims=0), [0.0, 0.0, 0.0]),
        (torch.zeros_like, [0.0, 0.0, 0.0]),
        (lambda latent: latent * torch.nan, [0.0, 0.0, 0.0]),
    ],
    ids=["own", "another's", "of nobody", "no number"],
)
def test_a_ct_is_found_only_where_it_is_nearer_than_all_others(aligned, found):
    latent = torch.randn(3, 4, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    figures = matched_figures(list(aligned(latent).split(1)), latent)
    assert figures["val_top1"] == found


def test_memory_that_runs_out_before_the_first_step_is_one_line(
    tiny_config, tiny_store, tmp_path, monkeypatch
):
    for stage, place, name in (
        ("alignment", alignment, "true_latents"),
        ("diffusion", diffusion, "measured_scale"),
    ):
        monkeypatch.setattr(place, name, lambda *_: torch.empty(2**50))
        message = f"{stage}: not enough memory for one case at a time; .* smaller system.grid"
        with pytest.raises(ValueError, match=message):
            train(tiny_config, tiny_store, tmp_path / "run", resume=stage == "diffusion")
        monkeypatch.undo()
        if stage == "alignment":
            train(tiny_config, tiny_store, tmp_path / "run", stage=stage, resume=True)


@pytest.mark.parametrize("kind", ["l1", "mse"])
def test_an_estimate_beyond_the_hu_window_is_no_error_where_the_truth_is_at_its_end(kind):
    config = AlignmentStage(num_steps=1, batch_size=1, reconstruction=kind)
    target = torch.tensor([-1.0, -1.0, 1.0, 1.0, 0.0])
    estimate = torch.tensor([-3.0, -0.5, 3.0, 0.5, -1.5], requires_grad=True)
    error = voxel_error(config, estimate, target)
    error.backward()
    assert error.item() == pytest.approx({"l1": 2.5, "mse": 2.75}[kind] / 5)
    assert torch.equal(estimate.grad == 0.0, torch.tensor([True, False, True, False, False]))


def test_averages_follow_weights_and_copy_what_is_no_weight():
    module = torch.nn.BatchNorm1d(2)
    averages = Averages(module, 0.5)
    with torch.no_grad():
        module.weight.fill_(3.0)
        module.running_mean.fill_(7.0)
        module.num_batches_tracked.fill_(5)
    averages.update(module, 100)
    assert averages.values["weight"].tolist() == [2.0, 2.0]
    assert averages.values["running_mean"].tolist() == [7.0, 7.0]
    assert averages.values["num_batches_tracked"] == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"contrast_weight": 0.0, "reconstruction_weight": 0.0}, "nothing to learn"),
        ({"case_weight": 0.0, "match_weight": 0.0}, "weighs nothing"),
        ({"match_weight": -1.0}, "match_weight must be 0 or more"),
        ({"levels": 0}, "levels 1 or more"),
        ({"batch_size": 1, "num_negatives": 0}, "needs negatives"),
        ({"queue_size": 2, "batch_size": 4}, "must hold a batch"),
        ({"queue_size": 8, "case_weight": 0.0}, "needs case_weight"),
        ({"local_weight": 1.0, "local_positions": 1}, "local_positions"),
        ({"local_weight": 1.0, "local_negatives": "cases", "batch_size": 1}, "batch_size of 2"),
        (
            {"local_weight": 1.0, "local_negatives": "cases", "batch_size": 4, "accumulate": 4},
            "2 or more in each of the turns",
        ),
    ],
)
def test_a_stage_that_could_not_learn_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        AlignmentStage(num_steps=1, **words)


@pytest.mark.parametrize(
    ("lines", "system", "message"),
    [
        ("reconstruction_weight = 0.0", "", "trained by the alignment stage"),
        ("", ALONE, "an estimate that the system does not have"),
        ("levels = 3", "", "latent of 4 voxels a side has no 3 levels"),
    ],
)
def test_a_system_and_a_stage_that_do_not_fit_are_refused(lines, system, message, tiny_config):
    with pytest.raises(ValueError, match=message):
        load_run(with_stage(tiny_config, lines, system=system))
