"""Runs: stopped, killed, resumed, stage by stage."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fewview.bundle import load_bundle
from fewview.training import train
from fewview.training.loop import Stage, fit
from fewview.training.processes import join
from fewview.training.stage_config import StageConfig

STAGES = ("autoencoder", "alignment", "diffusion")


class Stopped(Exception):
    """Stands for a kill."""


def stop_at(stage: str, step: int):
    def report(name, done, _steps, _shown):
        if (name, done) == (stage, step):
            raise Stopped

    return report


def differing(first: Path, second: Path) -> dict[str, float]:
    """The weights in which two models differ, and by how much at most."""
    one, other = (load_file(run / "model" / "weights.safetensors") for run in (first, second))
    assert one.keys() == other.keys()
    return {
        name: float((value.float() - other[name].float()).abs().max())
        for name, value in one.items()
        if not torch.equal(value, other[name])
    }


@pytest.mark.parametrize("stage", [*STAGES, "latents"])
def test_a_stopped_and_resumed_run_equals_an_unbroken_one(
    stage, tiny_config, tiny_store, tiny_run, tmp_path
):
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        train(tiny_config, tiny_store, out, report=stop_at(stage, 3))
    train(tiny_config, tiny_store, out, resume=True)
    assert differing(out, tiny_run) == {}


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_nothing_had_been(tiny_config, tiny_store, tiny_run, tmp_path):
    out = tmp_path / "run"
    code = "import sys; from pathlib import Path; from fewview.training import train; "
    code += "train(*map(Path, sys.argv[1:4]))"
    words = [sys.executable, "-c", code, str(tiny_config), str(tiny_store), str(out)]
    with subprocess.Popen(words) as process:
        until = time.monotonic() + 120
        while not (out / "alignment.safetensors").exists() and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    train(tiny_config, tiny_store, out, resume=True)
    assert differing(out, tiny_run) == {}


def test_a_run_leaves_metrics_and_a_model_that_loads(tiny_run):
    lines = [json.loads(line) for line in (tiny_run / "metrics.jsonl").read_text().splitlines()]
    assert {line["stage"] for line in lines} == set(STAGES)
    assert {line["stage"] for line in lines if "val_psnr_db" in line} == set(STAGES)
    assert load_bundle(tiny_run / "model").config.name == "tiny"


def test_stages_trained_one_by_one_give_the_same_model(tiny_config, tiny_store, tiny_run, tmp_path):
    for index, stage in enumerate(STAGES):
        train(tiny_config, tiny_store, tmp_path / "run", stage=stage, resume=index > 0)
    assert differing(tmp_path / "run", tiny_run) == {}


def test_a_stage_waits_for_the_one_before(tiny_config, tiny_store, tmp_path):
    with pytest.raises(ValueError, match="autoencoder stage has not been trained"):
        train(tiny_config, tiny_store, tmp_path / "run", stage="alignment")


def test_a_folder_with_a_run_needs_resume(tiny_config, tiny_store, tiny_run):
    with pytest.raises(ValueError, match="--resume"):
        train(tiny_config, tiny_store, tiny_run)


def test_another_config_cannot_resume_a_run(tiny_config, tiny_store, tiny_run):
    tiny_config.write_text(tiny_config.read_text().replace("num_examples = 4", "num_examples = 5"))
    with pytest.raises(ValueError, match="another config"):
        train(tiny_config, tiny_store, tiny_run, resume=True)


def test_a_damaged_checkpoint_is_named(tiny_config, tiny_store, tmp_path):
    with pytest.raises(Stopped):
        train(tiny_config, tiny_store, tmp_path / "run", report=stop_at("autoencoder", 3))
    (tmp_path / "run" / "autoencoder.safetensors").write_bytes(b"half a file")
    with pytest.raises(ValueError, match=r"autoencoder\.safetensors: damaged"):
        train(tiny_config, tiny_store, tmp_path / "run", resume=True)


def test_latents_are_made_anew_only_when_stage_one_was_trained_again(
    tiny_config, tiny_store, tiny_run, tmp_path
):
    told = []

    def report(name: str, *_: object) -> None:
        told.append(name)

    # As benchmarks/runs.py does: the autoencoder and the latents of another run.
    taken = shutil.copytree(tiny_run, tmp_path / "taken")
    (taken / "alignment.safetensors").unlink()
    train(tiny_config, tiny_store, taken, stage="alignment", resume=True, report=report)
    assert "latents" not in told
    checkpoint = taken / "autoencoder.safetensors"
    with safe_open(checkpoint, "pt") as stored:
        tensors = {name: 1.01 * stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        save_file(tensors, checkpoint, stored.metadata())
    (taken / "alignment.safetensors").unlink()
    train(tiny_config, tiny_store, taken, stage="alignment", resume=True, report=report)
    assert told.count("latents") == 4


def test_a_checkpoint_of_other_parts_is_one_line(tmp_path):
    def fitted(module: torch.nn.Module) -> None:
        stage = Stage(
            name="stage",
            config=StageConfig(num_steps=1),
            module=module,
            step_loss=lambda *_: (sum(value.sum() for value in module.parameters()), {}),
            validate=dict,
        )
        fit(stage, tmp_path, join("cpu"), report=lambda *_: None)

    fitted(torch.nn.ModuleDict({"one": torch.nn.Linear(1, 1)}))
    more = {"one": torch.nn.Linear(1, 1), "other": torch.nn.Linear(1, 1)}
    with pytest.raises(ValueError, match=r"stage\.safetensors: has not all that .* delete it"):
        fitted(torch.nn.ModuleDict(more))


def test_every_parameter_of_stage_two_is_trained(tiny_run):
    tensors = load_file(tiny_run / "alignment.safetensors")
    moved = {name for name in tensors if name.endswith("exp_avg")}
    weights = {name for name in tensors if name.startswith("module.")}
    assert len(moved) == len(weights)
    still = [name for name in moved if tensors[name].abs().max() == 0]
    assert not still
