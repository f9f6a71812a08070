"""The demo does the whole job with the bundled model."""

import json
import re
from pathlib import Path

import pytest

from fewview.data.images import read_volume
from fewview.demo import CEILING, Result, run_demo, table

pytestmark = pytest.mark.slow

Ran = tuple[Path, list[Result]]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A finished demo: its folder and its results."""
    folder = tmp_path_factory.mktemp("demo") / "demo"
    return folder, run_demo(folder, say=lambda line: None)


def test_everything_promised_is_written(ran):
    names = {path.name for path in ran[0].iterdir()}
    assert names == {
        "ct.nii.gz", "truth.nii.gz", "views", "montage.png", "report.html", "run.json",
    }  # fmt: skip


def test_the_reconstruction_lies_where_the_truth_does(ran):
    ct, truth = read_volume(ran[0] / "ct.nii.gz"), read_volume(ran[0] / "truth.nii.gz")
    assert ct.center_mm == pytest.approx(truth.center_mm, abs=0.01)


def test_every_method_is_in_the_table_and_the_model_beats_the_baselines(ran):
    psnr = {result.name: result.scores["psnr"] for result in ran[1]}
    assert set(psnr) == {"fewview", "mean volume", "FDK", "SIRT", CEILING}
    assert psnr["fewview"] > max(psnr[name] for name in ("mean volume", "FDK", "SIRT"))
    assert psnr["fewview"] < psnr[CEILING]
    assert all(name in table(ran[1]) for name in psnr)


def test_the_report_opens_offline(ran):
    report = (ran[0] / "report.html").read_text(encoding="utf-8")
    assert re.findall(r"(?:src|href)=[\"'](?!data:|#)", report) == []


def test_a_folder_of_its_own_is_replaced_and_any_other_is_not(ran, tmp_path, command, complaint):
    record = json.loads((ran[0] / "run.json").read_text())
    assert record["command"] == "demo"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    assert "--force" in complaint(command("demo", "--out", tmp_path / "mine"))
    assert (tmp_path / "mine" / "notes.txt").exists()
    one = command("demo", "--out", ran[0], "--views", 1)
    assert "one view along about 0 degrees" in one.stderr
    assert one.exit_code == 0
    assert "reconstructing from 1 X-ray\n" in one.stdout
    assert not (ran[0] / "views" / "view_01.tiff").exists()
