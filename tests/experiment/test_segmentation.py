"""The segmentation transfer from labelled folders to a report; it resumes, and mixes nobody up."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fewview.config import parse, to_toml
from fewview.data.images import write_labels
from fewview.data.phantom import write_cases
from fewview.experiment import segmentation
from fewview.experiment.segmentation import dice_of, main, run_segmentation
from fewview.experiment.segmentation_config import SegmentationConfig

SMALL = """
name = "a test"
seeds = [0]
precision = "float32"
[grid]
size = 16
[network]
blocks_down = [1, 1]
blocks_up = [1]
[data]
layout = "phantom"
num_test = 2
label_counts = [1, 2]
num_unlabelled = 2
[data.classes]
lung = ["lung", "lung_vessel"]
heart = ["heart"]
[reconstruction]
num_pixels = 16
[pretraining]
num_steps = 3
batch_size = 1
save_every = 1
log_every = 1
[finetuning]
num_steps = 3
batch_size = 1
save_every = 1
log_every = 1
"""


def small(**changes: object) -> SegmentationConfig:
    return replace(parse(SMALL, SegmentationConfig), **changes)


def cheap(**changes: object) -> SegmentationConfig:
    return small(arms=("none", "real"), **changes)


def files_in(folder: Path) -> dict[str, bytes]:
    found = sorted(path for path in folder.rglob("*") if path.suffix in {".json", ".csv", ".md"})
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six labelled phantoms."""
    folder = tmp_path_factory.mktemp("labelled") / "cases"
    write_cases(folder, 6, size=24)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A finished experiment of two arms."""
    out = tmp_path_factory.mktemp("transfer") / "out"
    run_segmentation(cheap(), out, data=data)
    return out


def test_all_arms_are_run_on_the_same_cases_and_reported(data, tmp_path, capsys):
    file = tmp_path / "small.toml"
    file.write_text(to_toml(small()))
    out = tmp_path / "out"
    assert main([str(file), "--data", str(data), "--out", str(out)]) == 0
    assert "reconstructed CT - real CT, 2 labelled: " in capsys.readouterr().out
    results = [json.loads(path.read_text()) for path in (out / "results").iterdir()]
    assert len(results) == 3 * 2
    assert {tuple(one["dice"]) for one in results} == {tuple(results[0]["dice"])}
    real, reconstructed = (
        sorted(path.name for path in (out / "volumes" / arm).iterdir())
        for arm in ("real", "reconstructed")
    )
    assert real == reconstructed
    assert "| 2 | reconstructed CT |" in (out / "summary.md").read_text()


def test_nobody_has_two_roles(whole):
    roles = json.loads((whole / "cases.json").read_text())
    groups = [set(roles[name]) for name in ("test", "labelled", "unlabelled")]
    assert [len(group) for group in groups] == [2, 2, 2]
    assert len(set.union(*groups)) == 6


@pytest.mark.parametrize("stop", [("real CTs", 1), ("pretraining", 2), ("finetuning", 2)])
def test_a_killed_experiment_goes_on_to_the_same_results(data, whole, tmp_path, stop):
    def killing(stage: str, done: int, *_: object) -> None:
        if (stage, done) == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_segmentation(cheap(), tmp_path / "out", data=data, report=killing)
    assert not (tmp_path / "out" / "summary.md").exists()
    run_segmentation(cheap(), tmp_path / "out", data=data)
    assert files_in(tmp_path / "out") == files_in(whole)


def test_a_finished_experiment_is_not_run_again(data, whole, monkeypatch):
    monkeypatch.setattr(segmentation, "finetune", None)
    runs = run_segmentation(cheap(), whole, data=data)
    assert [(run.arm, run.num_labels) for run in runs] == [
        (arm, count) for arm in ("none", "real") for count in (1, 2)
    ]


def test_fewer_labels_are_some_of_more_and_the_same_for_every_arm(data, tmp_path, monkeypatch):
    taught: dict[str, dict[str, set[str]]] = {f"{count}-labels": {} for count in (1, 2, 3)}

    def noting(_config, _network, examples, _setting, out, **_):
        taught[out.name][out.parent.name] = {one.id for one in examples}

    monkeypatch.setattr(segmentation, "finetune", noting)
    counts = replace(cheap().data, label_counts=(1, 2, 3), num_unlabelled=1)
    run_segmentation(cheap(data=counts), tmp_path, data=data)
    few, more, most = (arms["none-seed-0"] for arms in taught.values())
    assert few < more < most
    assert [arms["real-seed-0"] for arms in taught.values()] == [few, more, most]
    assert not most & set(json.loads((tmp_path / "cases.json").read_text())["test"])


def test_another_config_is_refused(data, whole):
    config = replace(cheap().finetuning, num_steps=4)
    with pytest.raises(ValueError, match=r"begun with another config\.toml; choose another"):
        run_segmentation(cheap(finetuning=config), whole, data=data)


def test_other_cases_of_the_same_names_are_refused(whole, tmp_path):
    write_cases(tmp_path / "cases", 6, size=24, seed=50)
    with pytest.raises(ValueError, match=r"begun with another cases\.json"):
        run_segmentation(cheap(), whole, data=tmp_path / "cases")


def test_a_folder_of_something_else_is_left_alone(data, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match="not empty and holds no segmentation experiment"):
        run_segmentation(cheap(), tmp_path, data=data)


def test_a_test_scan_under_another_name_is_not_pre_trained_on(data, whole, tmp_path):
    held_out = next(iter(json.loads((whole / "cases.json").read_text())["test"]))
    for name in ("one", "two"):
        (tmp_path / "ct" / name).mkdir(parents=True)
        shutil.copy(data / held_out / "ct.nii.gz", tmp_path / "ct" / name / "scan.nii.gz")
    with pytest.raises(ValueError, match="one scan has two roles"):
        run_segmentation(cheap(), tmp_path / "out", data=data, unlabelled=tmp_path / "ct")
    assert not (tmp_path / "out").exists()


def test_a_patient_on_both_sides_is_refused(data, whole, tmp_path):
    held_out = next(iter(json.loads((whole / "cases.json").read_text())["test"]))
    write_cases(tmp_path / "new", 2, size=24, seed=50)
    (tmp_path / "new" / "case_0000").rename(tmp_path / "new" / held_out)
    with pytest.raises(ValueError, match="one patient has two roles"):
        run_segmentation(cheap(), tmp_path / "out", data=data, unlabelled=tmp_path / "new")


def test_too_few_cts_to_pre_train_on_are_refused(data, tmp_path):
    write_cases(tmp_path / "new", 1, size=24, seed=50)
    with pytest.raises(ValueError, match="num_unlabelled is 2, but there are 1 CTs"):
        run_segmentation(cheap(), tmp_path / "out", data=data, unlabelled=tmp_path / "new")


def test_cases_without_any_class_give_no_interval(data, tmp_path):
    config = cheap()
    config = replace(config, data=replace(config.data, classes={"nodule": ("nodule",)}))
    with pytest.raises(ValueError, match="two test cases that have a class"):
        run_segmentation(config, tmp_path / "out", data=data)


def test_without_monai_nothing_is_begun(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "monai", None)
    (tmp_path / "small.toml").write_text(SMALL)
    words = [str(tmp_path / "small.toml"), "--data", str(data), "--out", str(tmp_path / "out")]
    assert main(words) == 1
    complaint = "segmentation needs monai: pip install 'fewview[segmentation]'\n"
    assert capsys.readouterr().err == complaint
    assert not (tmp_path / "out").exists()


def test_dice_is_of_the_file_and_of_the_classes_that_are_there(tmp_path):
    truth = torch.zeros(4, 4, 4, dtype=torch.uint8)
    truth[:2], truth[3] = 1, 3
    predicted = np.zeros((4, 4, 4), np.uint8)
    predicted[:1], predicted[2], predicted[3] = 1, 2, 3
    write_labels(predicted, np.eye(4), tmp_path / "map.nii.gz")
    scores = dice_of(tmp_path / "map.nii.gz", truth, ("lung", "spleen", "heart"))
    assert scores == pytest.approx({"lung": 2 / 3, "heart": 1.0})
