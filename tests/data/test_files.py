"""Outputs appear whole or not at all."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fewview.data.files import replacing_file, replacing_folder

WRITE_A_FILE_FOR_EVER = """
import sys, time
from fewview.data.files import replacing_file
with replacing_file(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""
WRITE_A_FOLDER_FOR_EVER = """
import sys, time
from fewview.data.files import replacing_folder
with replacing_folder(sys.argv[1], force=True) as temporary:
    (temporary / "part").write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""
DIE_AFTER_THE_FIRST_RENAME = """
import os, pathlib, signal, sys
from fewview.data.files import replacing_folder
rename = pathlib.Path.rename
def rename_and_die(self, target):
    rename(self, target)
    os.kill(os.getpid(), signal.SIGKILL)
pathlib.Path.rename = rename_and_die
with replacing_folder(sys.argv[1], force=True):
    pass
"""


def stop_while_writing(program: str, path: Path, how: signal.Signals) -> None:
    """Run `program` on `path` and end it by signal `how` in the middle of its writing."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "writing\n"
        process.send_signal(how)
        assert process.wait(timeout=60) != 0


def write(path: Path, text: str) -> None:
    with replacing_file(path) as temporary:
        temporary.write_text(text)


def write_half_and_fail(path: Path, failure: BaseException | type[BaseException]) -> None:
    with replacing_file(path) as temporary:
        temporary.write_text("half")
        raise failure


def test_a_file_appears_whole_under_its_name_and_with_its_suffixes(tmp_path):
    path = tmp_path / "new" / "ct.nii.gz"
    with replacing_file(path) as temporary:
        assert temporary.name.endswith("ct.nii.gz")
        assert temporary.parent == path.parent
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path, failure):
    path = tmp_path / "ct.nii.gz"
    write(path, "old")
    with pytest.raises(failure):
        write_half_and_fail(path, failure)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_write_keeps_the_old_file_and_the_next_write_cleans_up(tmp_path, how):
    path = tmp_path / "ct.nii.gz"
    write(path, "old")
    stop_while_writing(WRITE_A_FILE_FOR_EVER, path, how)
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == (2 if how == signal.SIGKILL else 1)
    write(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_write_keeps_the_old_folder_and_the_next_write_cleans_up(tmp_path, how):
    folder = tmp_path / "views"
    with replacing_folder(folder) as temporary:
        (temporary / "old").write_text("old")
    stop_while_writing(WRITE_A_FOLDER_FOR_EVER, folder, how)
    assert [file.name for file in folder.iterdir()] == ["old"]
    with replacing_folder(folder, force=True) as temporary:
        (temporary / "new").write_text("new")
    assert [file.name for file in folder.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_temporary_of_a_living_process_is_left_alone(tmp_path):
    path = tmp_path / "ct.nii.gz"
    with replacing_file(path) as first:
        first.write_text("first")
        write(path, "second")
        assert first.exists()
    assert path.read_text() == "first"


def test_a_folder_killed_between_its_two_renames_is_brought_back(tmp_path):
    folder = tmp_path / "views"
    with replacing_folder(folder) as temporary:
        (temporary / "old").write_text("old")
    process = subprocess.run([sys.executable, "-c", DIE_AFTER_THE_FIRST_RENAME, str(folder)])
    assert process.returncode == -signal.SIGKILL
    assert not folder.exists()
    with pytest.raises(ValueError, match="not empty"), replacing_folder(folder):
        pass
    assert (folder / "old").read_text() == "old"


def test_a_folder_with_content_needs_force(tmp_path):
    folder = tmp_path / "views"
    folder.mkdir()
    with replacing_folder(folder) as temporary:  # an empty one does not
        (temporary / "one").write_text("1")
    with (
        pytest.raises(ValueError, match=r"views is not empty; use --force"),
        replacing_folder(folder),
    ):
        pass
    with pytest.raises(RuntimeError), replacing_folder(folder, force=True) as temporary:
        raise RuntimeError
    assert (folder / "one").read_text() == "1"
    assert list(tmp_path.iterdir()) == [folder]


def test_the_current_and_the_home_folder_are_never_replaced(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for folder in (tmp_path, Path.cwd(), Path.home(), Path("/")):
        with (
            pytest.raises(ValueError, match="refusing to replace"),
            replacing_folder(folder, force=True),
        ):
            pass


def test_a_name_taken_by_the_other_kind_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="no file is there"):
        write(tmp_path, "")
    with pytest.raises(ValueError, match="a file is there"), replacing_folder(tmp_path / "file"):
        pass
    with pytest.raises(ValueError, match="has the name of its folder"):
        write(tmp_path / "file" / "ct.nii.gz", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's always full device")
def test_a_full_disk_is_one_line_with_the_output_and_leaves_nothing(tmp_path):
    try:
        Path("/dev/full").write_text("x")
    except OSError as error:
        full = error
    with pytest.raises(OSError, match=r"cannot write .*ct\.nii\.gz: No space left") as failure:
        write_half_and_fail(tmp_path / "ct.nii.gz", full)
    assert failure.value.errno == errno.ENOSPC
    assert "\n" not in str(failure.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_an_unwritable_folder_is_one_line_with_the_output(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match=r"cannot write .*ct\.nii\.gz: Permission denied"):
        write(tmp_path / "ct.nii.gz", "")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a file system nobody can write to")
def test_a_place_that_takes_no_files_is_one_line_with_the_output():
    with pytest.raises(OSError, match=r"ct\.nii\.gz"):
        write(Path("/proc/self/ct.nii.gz"), "")


def test_an_input_that_cannot_be_read_is_not_blamed_on_the_output(tmp_path):
    blamed = PermissionError(errno.EACCES, "Permission denied", "/elsewhere/input.nii")
    with pytest.raises(PermissionError, match=r"input\.nii"), replacing_file(tmp_path / "out.nii"):
        raise blamed
