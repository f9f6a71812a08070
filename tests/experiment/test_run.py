"""An experiment runs, resumes, survives what fails, and reports from files alone."""

import contextlib
import csv
import json
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from fewview.config import parse
from fewview.data.images import read_volume
from fewview.data.volume import cubic_grid, resample
from fewview.evaluation.compare import compare
from fewview.experiment.cases import (
    Sources,
    list_cases,
    read_some_views,
    write_case,
)
from fewview.experiment.config import ExperimentConfig, FileCases, PhantomCases, StoreCases
from fewview.experiment.methods import ConstantMethod
from fewview.experiment.plan import make_plan
from fewview.experiment.report import report_experiment
from fewview.experiment.run import DIED, run_experiment
from fewview.experiment.work import Place, Task, do

SMALL = """
name = "a test"
reference = "mean"
num_views = [1, 4]
num_pixels = 16
keep_volumes = true
protocols = ["hu3d", "x2ct", "retrieval"]
[phantoms]
count = 2
size = 32
[grid]
size = 16
[scored]
size = 16
extent_mm = 320.0
[methods.mean]
kind = "mean"
[methods.FDK]
kind = "fdk"
[methods.head]
kind = "model"
nfe = 0
[methods.broken]
kind = "model"
model = "not-there"
[methods.truth]
kind = "grid"
"""

Scores = dict[str, dict[str, float]]


def small(**changes: object) -> ExperimentConfig:
    return replace(parse(SMALL, ExperimentConfig), **changes)


def cheap(**changes: object) -> ExperimentConfig:
    config = small(**changes)
    kept = {name: config.methods[name] for name in ("mean", "truth")}
    return replace(config, methods=kept, num_views=(1,))


def scores_in(out: Path) -> Scores:
    found = [json.loads(path.read_text()) for path in (out / "results").glob("*.json")]
    return {f"{one['method']} {one['case']} {one['num_views']}": one["scores"] for one in found}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished experiment with its report."""
    out = tmp_path_factory.mktemp("experiment") / "out"
    run_experiment(small(), out, sources=Sources())
    report_experiment(out)
    return out


def test_every_method_has_a_result_per_case_and_view_count(ran):
    with (ran / "results.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    found = sorted((row["method"], row["num_views"], row["case"][-1]) for row in rows)
    everywhere = ("FDK", "head autoencoder", "mean", "truth")
    full = [(m, v, c) for m in everywhere for v in "14" for c in "01"]
    assert found == sorted([*full, ("head", "1", "0"), ("head", "1", "1")])
    assert all(float(row["seconds"]) > 0.0 for row in rows)


def test_a_method_that_cannot_is_skipped_and_one_that_fails_stops_no_other(ran):
    plan = json.loads((ran / "plan.json").read_text())
    assert plan["skipped"] == [
        {"method": "head", "num_views": 4, "reason": "trained on 1, 2, 3 views"}
    ]
    assert [(one["method"], "not-there" in one["reason"]) for one in plan["failed"]] == [
        ("broken", True)
    ]


def test_the_ceiling_is_above_every_method_and_marked(ran):
    with (ran / "results.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    ceiling = [float(row["psnr"]) for row in rows if row["ceiling"] == "True"]
    others = [float(row["psnr"]) for row in rows if row["ceiling"] == "False"]
    assert len(ceiling) == 8
    assert min(ceiling) > max(others)


def test_scores_are_those_of_the_written_files(ran):
    config = small()
    jobs = make_plan(config, list_cases(config, Sources()), "cpu").jobs
    job = next(job for job in jobs if (job.name, job.num_views) == ("FDK", 4))
    place = Place(ran, config, Sources(), "cpu", None)
    truth = read_volume(place.inputs(job) / "truth.nii.gz")
    scored = cubic_grid(truth.center_mm, size=16, extent_mm=320.0)
    predicted = resample(read_volume(place.prediction(job)), scored)
    wanted = compare(predicted, truth, keep_couch=True, protocols=("hu3d", "x2ct"))
    found = json.loads((ran / "results" / f"{job.key}.json").read_text())["scores"]
    assert {key: found[key] for key in wanted} == pytest.approx(wanted, nan_ok=True)


def test_the_cost_stands_beside_the_quality(ran):
    table = (ran / "tables.md").read_text()
    head, fdk, mean = (
        next(line for line in table.splitlines() if line.startswith(f"| {name} |"))
        for name in ("head", "FDK", "mean")
    )
    assert "not counted" in mean
    assert "not counted" not in fdk
    gflop = float(head.split("|")[-3])
    assert 1.0 < gflop < 1000.0


def test_the_report_and_the_pages_open_offline(ran):
    pages = [ran / "report.html", *sorted((ran / "examples").iterdir())]
    assert len(pages) == 6
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert re.findall(r"(?:src|href)=[\"'](?!data:|#)", text) == []
        assert "data:image/png" in text
    assert "trained on 1, 2, 3 views" in pages[0].read_text()
    assert "Paired tests against mean" in pages[0].read_text()


def test_what_is_skipped_for_want_of_weights_is_named(ran):
    for name in ("report.html", "tables.md"):
        text = (ran / name).read_text(encoding="utf-8")
        assert "LPIPS" in text
        assert "TotalSegmentator" in text


def test_cards_say_what_was_scored_and_on_what(ran):
    card = (ran / "cards" / "model-head.md").read_text()
    assert "2 held-out phantoms" in card
    assert "64 x 64 x 64 voxels of 6.25 mm" in card
    assert "[system" not in card.split("## Configuration")[0]
    data = (ran / "cards" / "data.md").read_text()
    assert "2 from procedural phantoms" in data
    assert "phantom-1000001" in data


def test_the_report_needs_neither_models_nor_truths(ran, tmp_path):
    moved = Path(shutil.copytree(ran, tmp_path / "moved"))
    shutil.rmtree(moved / "work")
    before = (moved / "tables.md").read_bytes()
    (moved / "tables.md").unlink()
    report_experiment(moved)
    assert (moved / "tables.md").read_bytes() == before


def test_retrieval_ranks_the_own_truth_among_all(ran):
    rows = json.loads((ran / "results.json").read_text())
    ranks = {row["scores"]["retrieval_rank"] for row in rows if row["method"] == "truth"}
    assert ranks == {1.0}


def test_a_killed_run_goes_on_and_ends_as_if_never_killed(ran, tmp_path):
    def stop(stage: str, done: int, count: int, shown: str) -> None:
        if (stage, done) == ("results", 2):
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run_experiment(cheap(), out, sources=Sources(), progress=stop)
    kept = {path: path.stat().st_mtime_ns for path in (out / "results").glob("*.json")}
    assert len(kept) == 2
    report_experiment(out)
    assert "2 results are missing" in (out / "tables.md").read_text()
    run_experiment(cheap(), out, sources=Sources())
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    found = scores_in(out)
    assert len(found) == 4
    for name, scores in found.items():
        assert scores == pytest.approx(scores_in(ran)[name], nan_ok=True)


def test_views_are_those_of_the_count_and_noise_belongs_to_case_and_angle(ran, tmp_path):
    folder = next((ran / "work" / "cases").iterdir())
    angles = [g.primary_angle_deg for g in read_some_views(folder, 4).geometries]
    assert angles == [0.0, 45.0, 90.0, 135.0]
    noisy = cheap(photons=1e3)
    case = list_cases(noisy, Sources())[0]
    write_case(case, noisy, Sources(), tmp_path / "one")
    write_case(case, replace(noisy, num_views=(1, 2)), Sources(), tmp_path / "two")
    one, two = (read_some_views(tmp_path / name, 1).images for name in ("one", "two"))
    assert one.equal(two)


def test_a_folder_that_is_no_experiment_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("keep me")
    with pytest.raises(ValueError, match="no experiment"):
        run_experiment(cheap(), tmp_path, sources=Sources())
    with pytest.raises(ValueError, match="holds no finished experiment"):
        report_experiment(tmp_path)


def test_missing_sources_and_unknown_protocols_are_named(tmp_path):
    for changed, says in (
        (cheap(store=StoreCases()), "--data"),
        (cheap(files=FileCases(paths=("a.nii.gz",))), "--ct-data"),
        (cheap(protocols=("hu4d",)), "hu4d"),
    ):
        with pytest.raises(ValueError, match=says):
            run_experiment(changed, tmp_path / "out", sources=Sources())
    assert not (tmp_path / "out").exists()


def test_a_case_that_cannot_be_read_stops_no_other(tmp_path):
    (tmp_path / "bad.nii.gz").write_bytes(b"no CT")
    config = cheap(files=FileCases(paths=("bad.nii.gz",)))
    plan = run_experiment(config, tmp_path / "out", sources=Sources(ct_data=tmp_path))
    assert [(one["method"], one["case"]) for one in plan.failed] == [("", "bad")]
    assert len(list((tmp_path / "out" / "results").glob("*.json"))) == 4
    assert "Traceback" in next((tmp_path / "out" / "errors").iterdir()).read_text()
    report_experiment(tmp_path / "out")
    assert "| all methods | bad | all |" in (tmp_path / "out" / "tables.md").read_text()


@pytest.mark.parametrize("hu", [-600.0, 40.0])
def test_a_prediction_that_looks_like_no_ct_is_scored_all_the_same(hu, tmp_path):
    config = cheap()
    methods = {"mean": config.methods["mean"], "constant": ConstantMethod(hu=hu)}
    plan = run_experiment(replace(config, methods=methods), tmp_path / "out", sources=Sources())
    assert plan.failed == []
    found = scores_in(tmp_path / "out")
    assert found["constant phantom-1000000 1"]["psnr"] < found["mean phantom-1000000 1"]["psnr"]


@pytest.mark.slow
def test_two_processes_find_what_one_finds(ran, tmp_path):
    run_experiment(cheap(), tmp_path / "out", sources=Sources(), workers=2)
    for name, scores in scores_in(tmp_path / "out").items():
        assert scores == pytest.approx(scores_in(ran)[name], rel=1e-4, nan_ok=True)


@pytest.mark.slow
def do_or_die_once(task: Task) -> str:
    """The work of an experiment, in a process that is killed over the first result it sees."""
    if task.what == "result":
        with contextlib.suppress(FileExistsError):
            (task.place.out / "killed").touch(exist_ok=False)
            os.kill(os.getpid(), signal.SIGKILL)
    return do(task)


def test_a_worker_that_dies_costs_one_result_and_the_next_call_makes_it(tmp_path, monkeypatch):
    monkeypatch.setattr("fewview.experiment.run.do", do_or_die_once)
    config = replace(cheap(), phantoms=PhantomCases(count=4, size=32))
    plan = run_experiment(config, tmp_path, sources=Sources(), workers=2)
    assert [DIED in one["reason"] for one in plan.failed] == [True]
    assert len(scores_in(tmp_path)) == 7
    again = run_experiment(config, tmp_path, sources=Sources())
    assert again.failed == []
    assert len(scores_in(tmp_path)) == 8


def test_the_command_says_what_it_found(tmp_path, command):
    config = tmp_path / "small.toml"
    shortened = SMALL.split("[methods.FDK]")[0].replace("[1, 4]", "[1]")
    config.write_text(shortened + '[methods.broken]\nkind = "model"\nmodel = "not-there"\n')
    result = command("experiment", config, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert re.search(r"mean, 1 view: PSNR dB \d+\.\d\d \(", result.stdout)
    assert "failed broken" in result.stderr
    again = command("experiment", config, "--out", tmp_path / "out", "--report-only")
    assert again.exit_code == 0
