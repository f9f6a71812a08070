"""Which CTs are pre-trained on, and that a scan in two roles is found by its bytes."""

import numpy as np
import pytest

from fewview.data.images import read_volume
from fewview.data.labelled import find_labelled
from fewview.data.one_scan import checksum_of
from fewview.data.phantom import write_cases
from fewview.data.prepare import prepare
from fewview.experiment.segmentation_volumes import roles_of, unlabelled_cts, write_real
from fewview.inputs import GridConfig


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms") / "cases"
    write_cases(folder, 4, size=16)
    return folder


@pytest.fixture(scope="module")
def store(cases, tmp_path_factory):
    """Two cases to train on, one for each of the other splits."""
    folder = tmp_path_factory.mktemp("prepared")
    splits = ("train", "val", "test", "train")
    rows = [f"case_000{index},p{index},{split}" for index, split in enumerate(splits)]
    (folder / "split.csv").write_text("\n".join(["case,patient,split", *rows]) + "\n")
    prepare([cases], folder / "store", size=16, split_file=folder / "split.csv")
    return folder / "store"


def test_of_a_store_only_the_training_split_is_pre_trained_on(store):
    found = unlabelled_cts(store, (), count=2)
    assert [one.patient for one in found] == ["p0", "p3"]
    with pytest.raises(ValueError, match="num_unlabelled is 3, but there are 2"):
        unlabelled_cts(store, (), count=3)


def test_a_scan_in_a_store_is_known_by_the_bytes_it_was_made_of(store, cases):
    held_out = find_labelled(cases, "phantom").cases[3]
    ct = unlabelled_cts(store, (), count=2)[1]
    assert ct.checksum() == checksum_of(held_out.ct)
    with pytest.raises(ValueError, match="one scan has two roles: case_0003 is test"):
        roles_of({"test": (held_out,)}, [ct])


def test_one_patient_may_have_many_scans_in_one_role(store):
    first, second = unlabelled_cts(store, (), count=2)
    assert len(roles_of({}, [first, second._replace(patient=first.patient)])["unlabelled"]) == 2


def test_real_cts_are_written_once_on_the_model_grid(cases, tmp_path):
    told: list[tuple[object, ...]] = []

    def note(*what: object) -> None:
        told.append(what)

    cts = unlabelled_cts(cases, (), count=2)
    for _ in range(2):
        paths = write_real(
            cts, tmp_path, GridConfig(size=8), report=lambda *what: told.append(what)
        )
    assert len(told) == len(paths) == 2
    written = read_volume(paths[0], known_hu=True)
    assert written.shape == (8, 8, 8)
    np.testing.assert_allclose(written.spacing_mm, 50.0, atol=1e-3)
