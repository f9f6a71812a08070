"""Who may import whom, followed through every module on the way."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fewview

SOURCE = Path(fewview.__file__).parent
ON_TOP = {"cli", "commands", "demo", "experiment", "arguments", "terminal", "progress", "records"}

ONLY = {
    "data": {"data"},
    "models": {"models"},
    "diffusion": {"diffusion"},
    "config": {"config"},
    "xray": {"data", "xray"},
    "evaluation": {"data", "xray", "evaluation"},
}
NEVER = {
    "bundle": {"evaluation", "training"},
    "baselines": {"evaluation", "training"},
    "reconstruct": {"evaluation", "training"},
    "refine": {"evaluation", "training"},
    "calibration": {"evaluation", "training", "reconstruct"},
    "sampling": {"evaluation", "training"},
    "inputs": {"evaluation", "training"},
    "system": {"evaluation", "training"},
    "training": {"evaluation", "reconstruct"},
    "transfer": {"evaluation", "reconstruct"},
}


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCE.rglob("*.py")}


def imported(path: Path) -> Iterator[str]:
    """Modules of ours that a file imports anywhere, also in functions and for types only."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in {path}"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                if name in MODULES:
                    yield name
                elif node.module == "fewview":
                    yield fewview._HOMES.get(alias.name, "fewview")
                elif node.module in MODULES:
                    yield node.module


GRAPH = {name: set(imported(path)) for name, path in MODULES.items() if name != "fewview"}


def part(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def reached(start: str) -> dict[str, str]:
    """Every module reached from the modules of a part, and the way there."""
    ways = {name: name for name in GRAPH if part(name) == start}
    waiting = list(ways)
    while waiting:
        here = waiting.pop()
        for there in GRAPH.get(here, ()):
            if there not in ways:
                ways[there] = f"{ways[here]} > {there}"
                waiting.append(there)
    return ways


@pytest.mark.parametrize("name", sorted(ONLY))
def test_a_part_reaches_only_what_it_may(name):
    allowed = ONLY[name] | {""}
    assert [way for module, way in reached(name).items() if part(module) not in allowed] == []


@pytest.mark.parametrize("name", sorted(NEVER))
def test_the_truth_cannot_reach_a_prediction(name):
    forbidden = NEVER[name] | ON_TOP
    assert [way for module, way in reached(name).items() if part(module) in forbidden] == []


def test_the_rule_sees_imports_inside_functions():
    assert "fewview.demo" in GRAPH["fewview.commands.making"]


def test_importing_the_command_line_imports_nothing_heavy():
    heavy = {"torch", "numpy", "scipy", "SimpleITK", "pydicom", "zarr", "pydantic", "matplotlib"}
    heavy |= {"lightning_fabric"}
    code = "import sys, fewview.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert heavy & set(done.stdout.split()) == set()


@pytest.mark.parametrize("name", [name for name in fewview.__all__ if name != "__version__"])
def test_every_public_name_is_there(name):
    assert callable(getattr(fewview, name))


def test_reconstruct_is_the_function_also_when_its_module_is_imported_first():
    code = (
        "import fewview.reconstruct; from fewview.reconstruct import reconstruct;"
        "assert fewview.reconstruct is reconstruct"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
