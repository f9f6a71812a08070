"""The README says only what is there."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from fewview.cli import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = get_command(app).commands

pytestmark = pytest.mark.skipif(not (ROOT / "Makefile").is_file(), reason="not a source checkout")


def test_every_command_of_the_program_is_in_the_readme():
    assert set(re.findall(r"`fewview (\w+)`", README)) >= set(COMMANDS)


@pytest.mark.parametrize("line", re.findall(r"^\.venv/bin/fewview (.+)$", README, re.MULTILINE))
def test_a_command_line_in_the_readme_is_understood(line):
    name, *words = line.split()
    COMMANDS[name].make_context(name, words)


def test_make_has_the_targets_the_documents_name():
    documents = README + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^make (\w+)$|`make (\w+)`", documents, re.MULTILINE))
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {first or second for first, second in named} <= targets


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_a_file_the_readme_links_to_is_there(target):
    assert (ROOT / target).exists()


def test_the_python_in_the_readme_uses_public_names():
    import fewview

    used = set(re.findall(r"fewview\.(\w+)\(", README))
    assert used <= set(fewview.__all__)


def test_the_version_is_the_one_cited():
    import fewview

    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {fewview.__version__}" in citation


def test_every_package_is_pinned():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    names = {pin.split("==")[0].lower() for pin in pins}
    assert "torch" in names
    assert not names & {"torchvision", "timm", "lpips"}
