"""Scans become a store: nothing lost, nothing cut, nothing half-written, no leak."""

import multiprocessing
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fewview.data.images import write_labels, write_volume
from fewview.data.prepare import prepare
from fewview.data.store import open_store
from fewview.data.volume import Volume

DIE_IN_THE_SECOND_CASE = """
import os, signal, sys
from pathlib import Path
from fewview.data import files, prepare, store
swap, num_swaps = files._swap, 0
def die_before_the_second(temporary, target):
    global num_swaps
    num_swaps += 1
    if num_swaps == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    swap(temporary, target)
files._swap = die_before_the_second
prepare.prepare([Path(sys.argv[1])], Path(sys.argv[2]), size=8)
"""
PREPARE_WHERE_FILES_CANNOT_GROW = """
import resource, sys
from pathlib import Path
from fewview.data.prepare import prepare
resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))
try:
    prepare([Path(sys.argv[1])], Path(sys.argv[2]), size=128)
except OSError as error:
    print(error)
"""


def patient(seed: int, *, extent_mm: float = 300.0, couch: bool = True) -> Volume:
    """A fat cylinder with a spine on a couch; 10 mm voxels."""
    count = round(extent_mm / 10.0)
    y, x = np.mgrid[:count, :count] - (count - 1) / 2.0
    plane = np.where(np.hypot(x / 1.4, y) < 8.0, -80.0 + seed, -1000.0)
    plane[np.hypot(x, y - 4.0) < 2.0] = 400.0
    if couch:
        plane[-2:, 5:-5] = 100.0
    matrix = np.diag([10.0, 10.0, 10.0, 1.0])
    matrix[:3, 3] = (-20.0, 35.0, 810.0)
    return Volume(np.repeat(plane[None], 20, axis=0).astype(np.float32), matrix)


@pytest.fixture
def scans(tmp_path):
    for seed in range(3):
        write_volume(patient(seed), tmp_path / "scans" / f"case_{seed:04d}" / "ct.nii.gz")
    return tmp_path / "scans"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "store"


def arrays(out: Path) -> list[str]:
    return sorted(folder.name for folder in (out / "cases").iterdir() if folder.is_dir())


def test_a_prepared_scan_is_the_body_at_its_place_on_the_stores_voxels(scans, out):
    report = prepare([scans], out, size=20, extent_mm=200.0)
    assert (report.num_prepared, report.num_kept, report.failures) == (3, 0, ())
    store = open_store(out)
    case = store.cases[1]
    volume = store.read("case_0001")
    assert (case.patient, case.source) == ("case_0001", "scans/case_0001/ct.nii.gz")
    assert volume.spacing_mm == (10.0, 10.0, 10.0)
    np.testing.assert_allclose(volume.center_mm, patient(1).center_mm, atol=1e-3)
    np.testing.assert_array_equal(volume.hu, patient(1, couch=False).hu)


def test_the_couch_stays_on_demand(scans, out):
    prepare([scans], out, size=20, extent_mm=200.0, keep_couch=True)
    np.testing.assert_array_equal(open_store(out).read("case_0001").hu, patient(1).hu)


def test_nothing_of_a_wide_body_is_cut_and_what_no_model_sees_is_reported(scans, out):
    report = prepare([scans], out, size=10, extent_mm=100.0, keep_couch=True)
    assert open_store(out).read("case_0000").shape == (20, 30, 30)
    body = patient(0, couch=False).hu + 1000.0
    seen = body[5:-5, 10:-10, 10:-10].sum() / body.sum()
    assert report.outside_shares["case_0000"] == pytest.approx(1.0 - seen, abs=1e-4)
    assert prepare([scans], out, size=40, force=True).outside_shares["case_0000"] == 0.0


def test_bad_scans_are_reported_with_a_reason_and_stop_nothing(scans, out):
    whole = (scans / "case_0001" / "ct.nii.gz").read_bytes()
    (scans / "a_truncated.nii.gz").write_bytes(whole[: len(whole) // 2])
    (scans / "b_text.nrrd").write_text("not a CT")
    air = np.full((9, 9, 9), -1000.0, dtype=np.float32)
    air[4, 4, 4] = -990.0
    write_volume(Volume(air, np.eye(4)), scans / "c_air.nii.gz")
    (scans / "d_dicom").mkdir()
    (scans / "d_dicom" / "1.dcm").write_bytes(b"x" * 200)
    report = prepare([scans], out, size=8)
    assert report.num_prepared == 3
    sources = [source for source, _ in report.failures]
    assert sources == [
        "scans/a_truncated.nii.gz",
        "scans/b_text.nrrd",
        "scans/c_air.nii.gz",
        "scans/d_dicom",
    ]
    assert all(reason and "\n" not in reason for _, reason in report.failures)
    assert arrays(out) == ["case_0000", "case_0001", "case_0002"]


def test_a_second_run_keeps_what_is_done_and_redoes_what_changed_or_broke(scans, out):
    prepare([scans], out, size=8)
    write_volume(patient(7), scans / "case_0001" / "ct.nii.gz")
    (out / "cases" / "case_0002" / "c" / "0" / "0" / "0").unlink()
    write_volume(patient(3), scans / "case_0003.nii.gz")
    seen = []
    report = prepare([scans], out, size=8, progress=lambda *state: seen.append(state))
    assert (report.num_prepared, report.num_kept) == (3, 1)
    assert seen == [(1, 4, "case_0000"), *((n, 4, f"case_000{n - 1}") for n in (2, 3, 4))]
    peaks = [open_store(out).read(f"case_000{number}").hu.max() for number in range(4)]
    assert peaks[1] > peaks[3] > peaks[2] > peaks[0]


def test_a_killed_run_leaves_a_good_store_and_the_next_one_goes_on(scans, out):
    process = subprocess.run([sys.executable, "-c", DIE_IN_THE_SECOND_CASE, str(scans), str(out)])
    assert process.returncode == -signal.SIGKILL
    store = open_store(out)
    assert [case.id for case in store.cases] == ["case_0000"]
    assert store.read("case_0000").hu.any()
    report = prepare([scans], out, size=8)
    assert (report.num_prepared, report.num_kept) == (2, 1)
    assert arrays(out) == ["case_0000", "case_0001", "case_0002"]


def test_the_work_of_several_processes_is_the_work_of_one(scans, out, tmp_path):
    (scans / "bad.nrrd").write_text("not a CT")
    alone = prepare([scans], out, size=8)
    report = prepare([scans], tmp_path / "together", size=8, workers=2)
    assert report == alone
    for case in open_store(out).cases:
        other = open_store(tmp_path / "together").read(case.id)
        np.testing.assert_array_equal(open_store(out).read(case.id).hu, other.hu)


def test_a_disk_that_takes_no_more_stops_the_run_with_one_line(scans, out):
    program = [sys.executable, "-c", PREPARE_WHERE_FILES_CANNOT_GROW, str(scans), str(out)]
    process = subprocess.run(program, capture_output=True, text=True)
    assert process.stdout == f"cannot write {out}/cases/case_0000: File too large\n"
    assert open_store(out).cases == ()
    assert arrays(out) == []


def test_a_store_of_other_settings_or_scans_is_refused_and_force_starts_it_anew(scans, out):
    prepare([scans], out, size=8)
    with pytest.raises(ValueError, match="8 voxels over 400 mm without couch, not with 16"):
        prepare([scans], out, size=16)
    (scans / "case_0001" / "ct.nii.gz").unlink()
    with pytest.raises(ValueError, match=r"holds 1 cases that the sources do not have .*case_0001"):
        prepare([scans], out, size=8)
    assert len(open_store(out).cases) == 3
    assert prepare([scans], out, size=16, force=True).num_prepared == 2
    assert arrays(out) == ["case_0000", "case_0002"]


def test_a_place_that_holds_something_else_is_refused_even_with_force(scans, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    for out in (scans, tmp_path / "mine", tmp_path / "mine" / "thesis.tex"):
        with pytest.raises(ValueError, match=r"choose another folder|a file is there"):
            prepare([scans], out, size=8, force=True)


def test_a_new_split_file_moves_cases_without_preparing_them_again(scans, out, tmp_path):
    split = tmp_path / "split.csv"
    rows = ["case_0000,a,train", "case_0001,a,train", "case_0002,b,test"]
    split.write_text("\n".join(["case,patient,split", *rows]))
    prepare([scans], out, size=8, split_file=split)
    assert [case.id for case in open_store(out).of_split("test")] == ["case_0002"]
    split.write_text("\n".join(["case,patient,split", *rows]).replace("test", "val"))
    assert prepare([scans], out, size=8, split_file=split).num_kept == 3
    assert [(case.id, case.patient) for case in open_store(out).of_split("val")] == [
        ("case_0002", "b")
    ]


def test_copies_of_one_scan_never_end_up_on_both_sides_of_a_split(scans, out, tmp_path):
    copy = scans / "copy.nii.gz"
    copy.write_bytes((scans / "case_0001" / "ct.nii.gz").read_bytes())
    split = tmp_path / "split.csv"
    rows = ["case_0000,,train", "case_0001,,train", "case_0002,,test", "copy,,val"]
    split.write_text("\n".join(["case,patient,split", *rows]))
    report = prepare([scans], out, size=8, split_file=split)
    reason = "left out: the same scan is copy in val"
    assert report.failures == (("scans/case_0001/ct.nii.gz", reason),)
    assert arrays(out) == ["case_0000", "case_0002", "copy"]


def test_label_maps_are_left_out_by_name_or_by_content(scans, out):
    rng = np.random.default_rng(0)
    for name, top in (("a_seg", 30), ("organs", 30), ("mask", 2), ("lungs", 2), ("bytes", 256)):
        labels = rng.integers(0, top, (12, 12, 12)).astype(np.uint8)
        write_labels(labels, np.eye(4), scans / f"{name}.nii.gz")
    report = prepare([scans], out, size=8)
    assert [place for place, _ in report.left_out] == ["scans/a_seg.nii.gz", "scans/mask.nii.gz"]
    reasons = {Path(place).name: "label map" in reason for place, reason in report.failures}
    assert reasons == {"organs.nii.gz": True, "lungs.nii.gz": True, "bytes.nii.gz": False}
    assert "2 left out, such as scans/a_seg.nii.gz: label map, by its name" in report.summary()


def test_a_killed_worker_costs_at_most_its_scan_and_the_next_run_brings_it(scans, out):
    def kill_one(num_done, num_all, name):
        if num_done == 1:
            multiprocessing.active_children()[0].kill()

    report = prepare([scans], out, size=8, workers=2, progress=kill_one)
    assert report.num_prepared >= 2
    assert report.num_prepared + len(report.failures) == 3
    assert all("the process died" in reason for _, reason in report.failures)
    assert prepare([scans], out, size=8).num_kept == report.num_prepared
    assert len(open_store(out).cases) == 3


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory from /proc")
def test_memory_stays_flat_over_many_scans(tmp_path, out):
    body = patient(0)
    body = Volume(np.repeat(body.hu, 4, axis=0), body.voxel_to_patient)  # 0.3 MB
    for number in range(120):
        body.hu[10, 15, 15] = float(number)  # another scan, as far as bytes go
        write_volume(body, tmp_path / "scans" / f"{number:03d}.nii")
    resident = []

    def measure(num_done, num_all, name):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        resident.append(pages * resource.getpagesize() / 2**20)

    prepare([tmp_path / "scans"], out, size=64, progress=measure)
    growth = max(resident[-20:]) - max(resident[20:40])
    assert growth < 8.0, f"{growth:.1f} MB over 80 scans"


def test_real_scans_go_in_whole(real_data, out):
    names = ("cip_ct64", "lungpetctdx_A0002_B40f")
    report = prepare([real_data / "ct" / f"{name}.nii.gz" for name in names], out, size=64)
    assert report.failures == ()
    for name in names:
        assert report.outside_shares[name] < 0.01
        hu = open_store(out).read(name).hu
        assert hu.min() >= -1024.0
        assert (hu > 200.0).mean() > 0.001
