"""A scan's license is what its own files or whoever prepared it say, and nothing else."""

import json

import numpy as np
import pytest

from fewview.data.images import write_volume
from fewview.data.licenses import MAX_LETTERS, PHANTOM, license_of
from fewview.data.store import open_store
from fewview.data.volume import Volume


@pytest.mark.parametrize(
    ("scan", "license"),
    [
        ("source/a.nii.gz", "CC BY 4.0"),
        ("source/inner/b.nii.gz", "CC BY-NC 3.0"),
        ("source/inner/series", "CC BY-NC 3.0"),
        ("source/other/deep/c.mha", "CC BY 4.0"),
        ("no-license/d.nii.gz", ""),
    ],
)
def test_the_nearest_license_file_of_the_source_counts_and_none_above_it(tmp_path, scan, license):
    for folder in ("source/inner/series", "source/other/deep", "no-license"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "LICENSE").write_text("of the machine's owner\n")
    (tmp_path / "source" / "LICENSE.md").write_text("\n# CC  BY 4.0\n\nYou may ...\n")
    (tmp_path / "source" / "inner" / "LICENSE").write_text("CC BY-NC 3.0")
    assert license_of(tmp_path / scan, tmp_path / scan.split("/")[0]) == license


def test_a_license_is_one_short_line(tmp_path):
    (tmp_path / "LICENSE").write_text("word " * 1000)
    assert len(license_of(tmp_path / "a.nii", tmp_path)) == MAX_LETTERS


@pytest.mark.parametrize(
    ("truth", "license"),
    [('{"format": "fewview-phantom/1"}', PHANTOM), ('{"seed": 1}', ""), ("[]", ""), ("{", "")],
)
def test_a_phantom_is_known_by_its_truth(tmp_path, truth, license):
    (tmp_path / "truth.json").write_text(truth)
    assert license_of(tmp_path / "ct.nii.gz", tmp_path) == license


def test_prepare_writes_each_license_and_a_later_call_without_one_keeps_it(tmp_path, command):
    ball = np.full((10, 10, 10), -1000.0, dtype=np.float32)
    ball[2:8, 2:8, 2:8] = 40.0
    for name in ("own", "other"):
        write_volume(Volume(ball, np.diag([9.0, 9.0, 9.0, 1.0])), tmp_path / name / "ct.nii.gz")
    (tmp_path / "own" / "LICENSE").write_text("CC0")
    words = ["prepare", tmp_path / "own", tmp_path / "other", "--out", tmp_path / "store"]
    words += ["--size", 8]
    for more in (["--license", "CC BY 4.0\n"], []):
        done = command(*words, *more)
        assert done.exit_code == 0, done.stderr
        cases = open_store(tmp_path / "store").cases
        assert {case.id: case.license for case in cases} == {"other": "CC BY 4.0", "own": "CC0"}
    index = json.loads((tmp_path / "store" / "index.json").read_text())
    assert index["licenses"] == {"other": "CC BY 4.0", "own": "CC0"}
    assert "license" not in index["cases"][0]  # older versions refuse keys they do not know
