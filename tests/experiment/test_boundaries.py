"""The truth cannot reach a prediction, and a score cannot know a method."""

import ast
from pathlib import Path

import pytest

import fewview.experiment

FOLDER = Path(fewview.experiment.__file__).parent


def modules_named_in(name: str) -> set[str]:
    """Every module that a file imports anywhere, also inside functions."""
    tree = ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))
    return {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("prediction", ("evaluation", "experiment.cases", "experiment.ceilings", "data.phantom")),
        ("prediction", ("experiment.work", "data.store", "data.images")),
        ("scoring", ("bundle", "reconstruct", "models", "experiment.prediction")),
        ("report", ("bundle", "reconstruct", "experiment.prediction", "experiment.cases")),
    ],
)
def test_a_module_does_not_see_what_it_must_not(name, hidden):
    found = modules_named_in(name)
    assert found
    assert [m for m in found if m.startswith(tuple(f"fewview.{part}" for part in hidden))] == []
