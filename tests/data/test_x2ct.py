"""Files of the X2CT line: HU, width and axes as told, and nothing guessed."""

import sys
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from fewview.data.prepare import prepare
from fewview.data.store import open_store
from fewview.data.x2ct import from_stored, read_x2ct


def stored(offset: int, size: int = 16) -> np.ndarray:
    """A body of water with fat and a little bone at the upper end on the left, as stored."""
    hu = np.full((size, size, size), -float(offset))
    hu[:, 2:-2, 2:-2] = -80.0
    hu[:, 4:-4, 4:-4] = 0.0
    hu[-4:, 6:-6, -6:-4] = 900.0
    return (hu + offset).astype(np.int16)


@pytest.mark.parametrize("offset", [1000, 1024])
def test_the_offset_makes_hu_and_the_size_the_voxels(offset):
    volume = from_stored(stored(offset), offset, "case")
    assert sorted(set(volume.hu.ravel())) == [-offset, -80.0, 0.0, 900.0]
    assert volume.spacing_mm == (20.0, 20.0, 20.0)
    np.testing.assert_allclose(volume.center_mm, 0.0)


def test_the_axes_run_toward_superior_posterior_left():
    volume = from_stored(stored(1000), 1000, "case")
    index = np.argwhere(volume.hu == 900.0).mean(axis=0)[::-1]
    x, y, z, _ = volume.voxel_to_patient @ [*index, 1.0]
    assert (x > 0.0, abs(y) < 1e-9, z > 0.0) == (True, True, True)


def test_what_is_no_cube_or_not_in_hu_is_refused():
    with pytest.raises(ValueError, match="no cube"):
        from_stored(stored(1000)[1:], 1000, "case")
    with pytest.raises(ValueError, match="not in HU"):
        from_stored((stored(1000) / 10).astype(np.int16) + 1000, 1000, "case")


@pytest.fixture
def h5py(monkeypatch):
    """Stands in for h5py, whose files it takes to be what `np.save` writes."""

    def opened(path, mode):
        assert mode == "r"
        return nullcontext({"ct": np.load(path)} if path.stat().st_size else {})

    monkeypatch.setitem(sys.modules, "h5py", SimpleNamespace(File=opened))


@pytest.fixture
def cases(tmp_path):
    body = stored(1024)
    for name in ("LIDC-IDRI-0132.20000101.3163.1", "LIDC-IDRI-0003.20000101.3000611.1"):
        (tmp_path / "x2ct" / name).mkdir(parents=True)
        with (tmp_path / "x2ct" / name / "ct_xray_data.h5").open("wb") as file:
            np.save(file, body)
        body[4, 8, 8] += 1  # equal scans of two patients would be one too many
    return tmp_path / "x2ct"


@pytest.mark.usefixtures("h5py")
def test_prepare_asks_for_the_offset_says_it_and_keeps_it(cases, tmp_path):
    with pytest.raises(ValueError, match="1000 or 1024 in the layout x2ct, got None"):
        prepare([cases], tmp_path / "store", layout="x2ct", size=16, extent_mm=320.0)
    words = {"layout": "x2ct", "size": 16, "extent_mm": 320.0}
    report = prepare([cases], tmp_path / "store", stored_offset_hu=1024, **words)
    assert report.failures == ()
    assert "HU + 1024" in report.summary()[0]
    store = open_store(tmp_path / "store")
    assert (store.settings.layout, store.settings.stored_offset_hu) == ("x2ct", 1024)
    assert [case.patient for case in store.cases] == ["LIDC-IDRI-0003", "LIDC-IDRI-0132"]
    hu = store.read("LIDC-IDRI-0003.20000101.3000611.1").hu
    assert (hu[8, 8, 8], hu[8, 2, 8], hu.max()) == (0.0, -80.0, 900.0)
    with pytest.raises(ValueError, match=r"offset of 1024 HU, not with .*offset of 1000 HU"):
        prepare([cases], tmp_path / "store", stored_offset_hu=1000, **words)


@pytest.mark.usefixtures("h5py")
def test_a_file_without_a_ct_is_reported(cases, tmp_path):
    (cases / "empty").mkdir()
    (cases / "empty" / "ct_xray_data.h5").write_bytes(b"")
    report = prepare([cases], tmp_path / "s", layout="x2ct", size=16, stored_offset_hu=1024)
    assert report.num_prepared == 2
    assert report.failures[0][1].endswith("holds no data set ct")


def test_without_h5py_one_line_says_what_to_install(cases, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ValueError, match=r"pip install 'fewview\[x2ct\]'"):
        prepare([cases], tmp_path / "store", layout="x2ct", stored_offset_hu=1000)
    assert not (tmp_path / "store").exists()


def test_true_hdf5_files_are_read_and_damaged_ones_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "ct_xray_data.h5"
    with h5py.File(path, "w") as file:
        file["ct"] = stored(1000)
    np.testing.assert_array_equal(read_x2ct(path, 1000).hu, stored(1000) - 1000.0)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ValueError, match="truncated or damaged"):
        read_x2ct(path, 1000)
