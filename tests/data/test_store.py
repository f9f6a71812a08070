"""A stored scan comes back as it was, where it was, and the model grid is a block of it."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import zarr

from fewview.data.store import (
    CaseInfo,
    StoreSettings,
    central_block,
    open_store,
    remove_unlisted,
    scanned_block,
    store_grid,
    write_case,
    write_index,
)
from fewview.data.volume import Grid, Volume, cubic_grid, resample, scanned

SETTINGS = StoreSettings(size=8, extent_mm=40.0)


def grid_of(shape, spacing_mm=(2.0, 2.0, 2.0), origin=(3.0, -50.0, 700.0)):
    matrix = np.diag([*spacing_mm[::-1], 1.0])
    matrix[:3, 3] = origin
    return Grid(shape, matrix)


def volume_of(shape):
    hu = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    return Volume(hu, grid_of(shape).voxel_to_patient)


def case_of(volume, name="a", split="train"):
    return CaseInfo(
        id=name,
        patient=name,
        split=split,
        source=f"data/{name}.nii",
        checksum="0" * 64,
        shape=volume.shape,
        voxel_to_patient=volume.voxel_to_patient,
        outside_share=0.25,
    )


@pytest.fixture
def store(tmp_path):
    volume = volume_of((4, 6, 130))
    write_case(tmp_path / "store", "a", volume.hu.astype(np.int16))
    write_index(tmp_path / "store", SETTINGS, [case_of(volume)])
    return tmp_path / "store"


def test_a_scan_and_what_is_known_of_it_come_back_as_they_were(store):
    opened = open_store(store)
    expected = volume_of((4, 6, 130))
    volume = opened.read("a")
    np.testing.assert_array_equal(volume.hu, expected.hu)
    np.testing.assert_array_equal(volume.voxel_to_patient, expected.voxel_to_patient)
    assert (opened.size, opened.extent_mm) == (8, 40.0)
    case = vars(opened.cases[0])
    for key, value in vars(case_of(expected)).items():
        np.testing.assert_array_equal(case[key], value)


def test_it_is_zarr_3_with_int16_and_named_axes(store):
    array = zarr.open_group(store / "cases", mode="r")["a"]
    assert isinstance(array, zarr.Array)
    assert array.dtype == np.int16
    assert array.metadata.zarr_format == 3
    assert array.metadata.dimension_names == ("depth", "height", "width")


def test_an_open_store_travels_to_other_processes(store):
    copy = pickle.loads(pickle.dumps(open_store(store)))
    assert copy.read("a").shape == (4, 6, 130)


def test_cases_are_found_by_split(tmp_path):
    volume = volume_of((2, 2, 2))
    cases = [case_of(volume, name, split) for name, split in (("b", "val"), ("a", "val"))]
    write_index(tmp_path, SETTINGS, cases)
    store = open_store(tmp_path)
    assert [case.id for case in store.of_split("val")] == ["a", "b"]
    assert store.of_split("test") == []
    with pytest.raises(ValueError, match="train, val, test"):
        store.of_split("validation")


def test_what_is_no_store_is_refused(tmp_path, store):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "nothing", tmp_path / "file"):
        with pytest.raises(ValueError, match="is no prepared store"):
            open_store(path)
    with pytest.raises(ValueError, match="has no case 'b'"):
        open_store(store).read("b")


@pytest.mark.parametrize("text", [b"", b"[]", b'{"format": "fewview-store/1"}', b"\xff{"])
def test_a_damaged_index_is_refused(store, text):
    (store / "index.json").write_bytes(text)
    with pytest.raises(ValueError, match=r"index\.json is damaged"):
        open_store(store)


def test_a_store_of_another_version_is_refused(store):
    (store / "index.json").write_text(json.dumps({"format": "fewview-store/2"}))
    with pytest.raises(ValueError, match="fewview-store/2"):
        open_store(store)


@pytest.mark.parametrize("damage", ["remove", "cut", "flip", "all"])
def test_missing_or_damaged_voxels_are_found_out(store, damage):
    chunk = store / "cases" / "a" / "c" / "0" / "0" / "1"
    data = bytearray(chunk.read_bytes())
    if damage == "cut":
        chunk.write_bytes(data[: len(data) // 2])
    elif damage == "flip":
        data[len(data) // 2] ^= 1
        chunk.write_bytes(data)
    elif damage == "remove":
        chunk.unlink()
    else:
        remove_unlisted(store, [])
    with pytest.raises(ValueError, match=r"case a of .* is missing or damaged"):
        open_store(store).read("a")


def test_chunks_of_air_are_written_so_that_none_can_be_missing_unseen(tmp_path):
    hu = np.full((2, 2, 2), -1000, dtype=np.int16)
    write_case(tmp_path, "a", hu)
    write_index(tmp_path, SETTINGS, [case_of(Volume(hu.astype(np.float32), np.eye(4)))])
    assert (open_store(tmp_path).read("a").hu == -1000.0).all()


def test_the_store_grid_is_every_voxel_whose_center_was_scanned():
    for counts in ((30, 41, 17), (25, 20, 22)):
        scan = grid_of(counts, spacing_mm=(3.0, 0.7, 1.1))
        grid = store_grid(scan, SETTINGS)
        wider = Grid(
            (grid.shape[0] + 2, grid.shape[1] + 2, grid.shape[2] + 2),
            grid.voxel_to_patient - np.array([[0, 0, 0, 5.0]] * 3 + [[0, 0, 0, 0]]),
        )
        inside = scanned(Volume(np.zeros(counts, np.float32), scan.voxel_to_patient), wider)
        assert inside[1:-1, 1:-1, 1:-1].all()
        assert inside.sum() == np.prod(grid.shape)
        np.testing.assert_allclose(grid.center_mm, scan.center_mm, atol=1e-9)
        assert grid.spacing_mm == (5.0, 5.0, 5.0)


def test_the_store_grid_of_a_turned_scan_holds_all_of_it():
    angle = np.deg2rad(30.0)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    grid = store_grid(Grid((50, 100, 100), matrix), SETTINGS)
    side = 100.0 * (np.cos(angle) + np.sin(angle))
    assert grid.shape == (10, *[2 * round(side / 10.0)] * 2)


def test_a_scan_thinner_than_a_voxel_still_has_a_grid():
    assert store_grid(grid_of((1, 30, 30)), SETTINGS).shape == (2, 12, 12)


@pytest.mark.parametrize("shape", [(4, 8, 14), (12, 2, 8)])
def test_the_central_block_is_the_model_grid_cut_or_padded(shape):
    volume = volume_of(shape)
    block = central_block(volume, 8)
    grid = cubic_grid(volume.center_mm, size=8, extent_mm=16.0)
    np.testing.assert_allclose(block.voxel_to_patient, grid.voxel_to_patient, atol=1e-9)
    np.testing.assert_array_equal(block.hu, resample(volume, grid).hu)
    np.testing.assert_array_equal(scanned_block(volume, 8), scanned(volume, grid))


def test_a_block_that_would_be_off_center_is_refused():
    with pytest.raises(ValueError, match="no place in the middle"):
        central_block(volume_of((4, 5, 6)), 4)


@pytest.mark.parametrize("wrong", [{"size": 0}, {"size": 63}, {"extent_mm": 0.0}])
def test_settings_that_make_no_grid_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        StoreSettings(**wrong)


@pytest.mark.parametrize(("layout", "offset"), [("x2ct", None), ("x2ct", 1001), ("folder", 1000)])
def test_an_offset_that_is_missing_or_has_no_meaning_is_refused(layout, offset):
    with pytest.raises(ValueError, match="stored_offset_hu must be"):
        StoreSettings(layout=layout, stored_offset_hu=offset)


def test_layout_and_collection_come_back_and_older_versions_do_not_see_them(tmp_path):
    settings = StoreSettings(size=8, layout="x2ct", stored_offset_hu=1000)
    case = replace(case_of(volume_of((2, 2, 2))), collection="X2CT")
    write_index(tmp_path, settings, [case])
    store = open_store(tmp_path)
    assert (store.settings, store.cases[0].collection) == (settings, "X2CT")
    index = json.loads((tmp_path / "index.json").read_text())
    assert set(index["settings"]) == {"size", "extent_mm", "keep_couch"}
    assert "collection" not in index["cases"][0]


def test_a_store_of_before_layouts_and_hashes_opens(store):
    index = json.loads((store / "index.json").read_text())
    old = {name: index[name] for name in ("format", "settings", "cases")}
    (store / "index.json").write_text(json.dumps(old, indent=1))
    opened = open_store(store)
    assert opened.settings == SETTINGS
    assert (opened.cases[0].collection, opened.cases[0].license) == ("", "")
    assert opened.read("a").shape == (4, 6, 130)


def test_splits_changed_by_hand_are_refused(store):
    index = json.loads((store / "index.json").read_text())
    assert index["split_sha256"] == open_store(store).split_hash
    index["cases"][0]["split"] = "test"
    (store / "index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"changed by hand.*prepare --split"):
        open_store(store)
    assert open_store(store, check_splits=False).cases[0].split == "test"


def test_a_patient_in_two_splits_is_neither_written_nor_read(tmp_path, store):
    a = case_of(volume_of((2, 2, 2)))
    with pytest.raises(ValueError, match=r"one split only: a \(test and train\)"):
        write_index(tmp_path, SETTINGS, [a, replace(a, id="b", split="test")])
    index = json.loads((store / "index.json").read_text())
    index["cases"].append({**index["cases"][0], "id": "b", "split": "test"})
    del index["split_sha256"]
    (store / "index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"one split only: a \(test and train\)"):
        open_store(store)
