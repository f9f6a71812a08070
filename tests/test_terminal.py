"""Failures become one line and an exit code."""

import os
import subprocess
import sys

import pytest

from fewview import terminal


def test_a_closed_pipe_is_no_traceback():
    code = "from fewview.cli import main; main()"
    words = f"{sys.executable} -c '{code}' --help | true"
    done = subprocess.run(["bash", "-c", words], capture_output=True, text=True, check=False)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(28, os.strerror(28), "ct.nii.gz"), "ct.nii.gz: no space left on device"),
        (MemoryError(), "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "not enough memory"),
        (ValueError("two\nlines"), "two lines"),
    ],
)
def test_an_error_becomes_one_line(error, says, capsys):
    def fail() -> None:
        raise error

    assert terminal.exit_code_of(fail) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"fewview: {says}")


def test_a_defect_of_ours_is_not_hidden_as_a_user_mistake():
    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        terminal.exit_code_of(fail)


def test_verbose_shows_the_traceback_wherever_it_stands(tmp_path, command):
    words = ("project", tmp_path / "no.nii", "--out", tmp_path / "o")
    for given in (("-v", *words), (*words, "--verbose")):
        assert "Traceback" in command(*given).stderr
