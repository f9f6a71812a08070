"""Several processes do what one does, and go on when one is lost."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from fewview.training import train
from fewview.training.batches import check_statistics, group_places, shares
from fewview.training.launch import needs_launch
from fewview.training.processes import (
    LostProcesses,
    OneProcessFailed,
    Processes,
    agreed_name,
    is_first,
    one_voice,
)
from fewview.training.stage_config import StageConfig

STAGES = ("autoencoder", "alignment", "diffusion")
FEWVIEW = [sys.executable, "-m", "fewview", "train"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def one_of(count: int, rank: int = 0) -> Processes:
    """A process that believes it has a group."""
    return Processes(SimpleNamespace(global_rank=rank, world_size=count))


WHOLE_BATCH = {
    "autoencoder": "discriminator_weight = 0.5\ndiscriminator_start = 2\n",
    "alignment": "contrast_weight = 1.0\nlocal_weight = 1.0\nqueue_size = 4\nlevels = 2\n",
}
SMALL = "[training.autoencoder.discriminator]\nwidth = 4\nnum_strided = 1\n"


def run(words: list[object], **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command that starts processes of one thread each."""
    return subprocess.run(
        [str(word) for word in words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        **options,
    )


def losses(out: Path) -> dict[tuple[str, int], float]:
    """Every loss of a run by stage and step; the last one where a step was done again."""
    entries = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {(one["stage"], one["step"]): one["loss"] for one in entries if "loss" in one}


def farthest(
    first: Path, second: Path, start: str = "module.", stages: Sequence[str] = STAGES
) -> float:
    """The largest difference of weights of some stages of two runs.

    The memory of the contrast holds normalized outputs, not weights; they carry rounding further.
    """
    return max(
        (value.float() - load_file(second / f"{stage}.safetensors")[name].float())
        .abs()
        .max()
        .item()
        for stage in stages
        for name, value in load_file(first / f"{stage}.safetensors").items()
        if name.startswith(start) and (start != "module." or "module.memory." not in name)
    )


@pytest.fixture(scope="module")
def contrast_config(tiny_run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny system with all that a whole batch decides, so that a wrong share of it shows."""
    path = tmp_path_factory.mktemp("contrast") / "tiny.toml"
    text = (tiny_run.parent / "tiny.toml").read_text()
    for stage, lines in WHOLE_BATCH.items():
        text = text.replace(f"[training.{stage}]\n", f"[training.{stage}]\n{lines}")
    path.write_text(text.replace("[training.alignment]", SMALL + "[training.alignment]"))
    return path


@pytest.fixture(scope="module")
def pair_run(contrast_config, tiny_store, tmp_path_factory) -> Path:
    """A finished run of two processes."""
    out = tmp_path_factory.mktemp("pair") / "run"
    done = run([*FEWVIEW, contrast_config, "--data", tiny_store, "--out", out, "--devices", 2])
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
def test_two_processes_give_the_losses_and_weights_of_one(
    contrast_config, tiny_store, pair_run, tmp_path
):
    train(contrast_config, tiny_store, tmp_path / "run")
    one, two = losses(tmp_path / "run"), losses(pair_run)
    assert one.keys() == two.keys()
    assert two == pytest.approx(one, rel=1e-5, abs=1e-5)
    assert farthest(tmp_path / "run", pair_run) < 1e-5
    memory = farthest(tmp_path / "run", pair_run, "module.memory.", ["alignment"])
    assert memory < 1e-4
    assert json.loads((pair_run / "run.json").read_text())["settings"]["devices"] == 2


@pytest.mark.slow
def test_two_processes_that_accumulate_give_the_losses_and_weights_of_one_that_does_not(
    contrast_config, tiny_store, tmp_path
):
    text = contrast_config.read_text()
    for name, more in (("one", ""), ("two", "accumulate = 2\n")):
        (tmp_path / f"{name}.toml").write_text(
            text.replace("batch_size = 2\n", f"batch_size = 4\n{more}")
        )
    train(tmp_path / "one.toml", tiny_store, tmp_path / "one", stage="autoencoder")
    words = ["--data", tiny_store, "--out", tmp_path / "two", "--stage", "autoencoder"]
    done = run([*FEWVIEW, tmp_path / "two.toml", *words, "--devices", 2])
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5, abs=1e-5)
    assert farthest(tmp_path / "one", tmp_path / "two", stages=["autoencoder"]) < 1e-5


@pytest.mark.slow
def test_a_scan_that_one_process_cannot_read_between_the_stages_is_told_once(
    tiny_config, tiny_store, tmp_path
):
    store = shutil.copytree(tiny_store, tmp_path / "store")
    words = [*FEWVIEW, tiny_config, "--data", store, "--out", tmp_path / "run"]
    train(tiny_config, store, tmp_path / "run", stage="autoencoder")
    shutil.rmtree(store / "cases" / "case_0001" / "c")  # the latents of rank 1 are of this one
    done = run([*words, "--stage", "alignment", "--resume", "--devices", 2])
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("fewview: ")]
    said = [line for line in lines if not line.startswith("fewview: latents: ")]  # progress
    assert len(said) == 1
    assert "case_0001" in said[0]


def process_of_rank_one(agent: int) -> int | None:
    """The process that torchrun started as rank 1, once it is there."""
    for child in Path(f"/proc/{agent}/task/{agent}/children").read_text().split():
        if b"\0RANK=1\0" in Path(f"/proc/{child}/environ").read_bytes():
            return int(child)
    return None


@pytest.mark.slow
def test_a_group_that_lost_a_process_is_started_again_and_ends_as_if_it_had_not(
    contrast_config, tiny_store, pair_run, tmp_path
):
    out = tmp_path / "run"
    words = [*TORCHRUN, "--max-restarts", 1, "-m", "fewview", "train", contrast_config]
    words += ["--data", tiny_store, "--out", out]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([str(word) for word in words], env=environment) as agent:
        until = time.monotonic() + 120
        while not (out / "autoencoder.safetensors").exists() and time.monotonic() < until:
            time.sleep(0.01)
        lost = process_of_rank_one(agent.pid)
        assert lost is not None
        os.kill(lost, signal.SIGKILL)
    assert agent.returncode == 0
    assert losses(out) == losses(pair_run)
    assert farthest(out, pair_run, "") == 0.0


@pytest.mark.slow
def test_two_machines_do_what_two_processes_on_one_do(
    contrast_config, tiny_store, pair_run, tmp_path
):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        meeting = f"localhost:{free.getsockname()[1]}"
    words = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    words += ["--rdzv-backend=c10d", f"--rdzv-endpoint={meeting}", "--rdzv-id=pair"]
    words += ["-m", "fewview", "train", contrast_config, "--data", tiny_store]
    with ThreadPoolExecutor(2) as machines:
        done = list(machines.map(run, [[*words, "--out", tmp_path / "run"]] * 2))
    assert [one.returncode for one in done] == [0, 0]
    assert losses(tmp_path / "run") == losses(pair_run)
    assert farthest(tmp_path / "run", pair_run, "") == 0.0


@pytest.mark.slow
def test_a_batch_that_cannot_be_divided_is_one_line_and_no_folder(
    contrast_config, tiny_store, tmp_path
):
    words = [contrast_config, "--data", tiny_store, "--out", tmp_path / "run", "--devices", 3]
    done = run([*FEWVIEW, *words])
    assert done.returncode == 1
    # torch's runtime may add a line of its own when its threads end at exit, on a busy machine.
    said = [line for line in done.stderr.splitlines() if not line.startswith("terminate called")]
    assert len(said) == 1
    assert "batch_size is 2 over all processes" in said[0]
    assert not (tmp_path / "run").exists()


def test_a_new_group_agrees_on_a_name_whatever_a_dead_one_left_in_the_store():
    store = torch.distributed.HashStore()
    store.set("call 1", "dead")
    store.set("answer 1", "deadname")
    names = []
    for _ in range(2):
        with ThreadPoolExecutor(3) as pool:
            ways = [pool.submit(agreed_name, store, rank, 3) for rank in (0, 1, 2)]
        agreed = {one.result() for one in ways}
        assert len(agreed) == 1
        names += agreed
    assert len({"name", *names}) == 3


@pytest.mark.parametrize(("count", "accumulate"), [(1, 1), (2, 1), (1, 3), (2, 3), (4, 3)])
def test_every_place_is_computed_once(count, accumulate):
    config = StageConfig(num_steps=1, batch_size=24, accumulate=accumulate)
    of_rank = [shares(config, "stage", one_of(count, rank)) for rank in range(count)]
    in_turn = [place for micro in zip(*of_rank, strict=True) for some in micro for place in some]
    assert in_turn == list(range(24))
    for rank in range(count):
        found = [group_places(some, one_of(count, rank)) for some in of_rank[rank]]
        assert [place for some in found for place in some] == list(range(24))


def test_a_batch_that_processes_cannot_share_evenly_is_refused():
    config = StageConfig(num_steps=1, batch_size=4, accumulate=2)
    with pytest.raises(ValueError, match=r"stage: batch_size is 4 .* 3 processes x 2 micro"):
        shares(config, "stage", one_of(3))


def test_micro_batches_must_divide_the_batch():
    with pytest.raises(ValueError, match="accumulate must be positive and divide batch_size"):
        StageConfig(num_steps=1, batch_size=4, accumulate=3)


@pytest.mark.parametrize(
    ("layer", "count", "refused"),
    [
        (torch.nn.BatchNorm3d(4), 2, True),
        (torch.nn.BatchNorm3d(4), 1, False),
        (torch.nn.InstanceNorm3d(4), 2, False),
    ],
)
def test_statistics_of_the_batch_are_refused_in_several_processes(layer, count, refused):
    expected = pytest.raises(ValueError, match="statistics of the batch") if refused else None
    with expected or nullcontext():
        check_statistics(torch.nn.Sequential(layer), "stage", one_of(count))


def as_rank(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    """Give this process the environment of one that torchrun started."""
    variables = {"TORCHELASTIC_RUN_ID": "x", "RANK": rank, "LOCAL_WORLD_SIZE": 2}
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))


def test_what_all_run_into_is_told_by_the_first_and_what_one_does_by_that_one(monkeypatch):
    as_rank(monkeypatch, 0)
    assert is_first()
    with pytest.raises(ValueError, match="all"), one_voice():
        raise ValueError("all")
    as_rank(monkeypatch, 1)
    assert not is_first()
    with pytest.raises(SystemExit), one_voice():
        raise ValueError("all")
    with pytest.raises(OneProcessFailed, match="mine"), one_voice():
        raise OneProcessFailed("mine")


def test_a_lost_process_is_told_by_its_launcher_alone(monkeypatch):
    as_rank(monkeypatch, 0)
    with pytest.raises(SystemExit), one_voice():
        raise LostProcesses


def test_under_torchrun_nothing_is_launched_and_another_number_is_refused(monkeypatch):
    assert needs_launch(2)
    assert not needs_launch(1)
    assert not needs_launch(None)
    as_rank(monkeypatch, 0)
    assert not needs_launch(2)
    assert not needs_launch(None)
    with pytest.raises(ValueError, match="torchrun started 2"):
        needs_launch(3)
