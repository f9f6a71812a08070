"""An experiment's file says what is compared, and nonsense is refused by name."""

import inspect
from pathlib import Path

import pytest

from fewview.baselines.iterative import cgls, sirt
from fewview.baselines.variation import total_variation
from fewview.config import load, parse, to_toml
from fewview.experiment.config import ExperimentConfig
from fewview.experiment.methods import SHARE, CglsMethod, SirtMethod, TvMethod

ROOT = Path(__file__).parents[2]

GOOD = """
name = "a test"
reference = "SIRT"
num_views = [1, 2]
[phantoms]
count = 2
[methods.SIRT]
kind = "sirt"
[methods.ceiling]
kind = "grid"
[methods."one sample"]
kind = "model"
nfe = 4
"""


def test_a_file_is_read_in_its_order_and_written_back_as_it_was():
    config = parse(GOOD, ExperimentConfig)
    assert list(config.methods) == ["SIRT", "ceiling", "one sample"]
    assert config.methods["SIRT"] == SirtMethod(num_steps=40)
    assert parse(to_toml(config), ExperimentConfig) == config


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("experiment-*.toml")))
def test_every_experiment_that_comes_along_loads(path):
    assert load(path, ExperimentConfig).methods


def test_the_example_of_the_documentation_loads():
    text = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    config = parse(text.split("```toml\n")[1].split("```")[0], ExperimentConfig)
    assert len(config.methods) == 5


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ('kind = "sirt"', 'kind = "sirt"\nstepps = 3', "stepps"),
        ('kind = "sirt"', 'kind = "sart"', "sart"),
        ('reference = "SIRT"', 'reference = "FDK"', "reference 'FDK'"),
        ('reference = "SIRT"', 'reference = "ceiling"', "sees the truth"),
        ("num_views = [1, 2]", "num_views = [1, 17]", "num_views"),
        ("num_views = [1, 2]", "num_views = [2, 2]", "twice"),
        ("[phantoms]\ncount = 2", "", "no cases"),
        ("count = 2", "count = 51", "count must be 1 to 50"),
        ("[methods.ceiling]", "[methods.sirt]", "letters or digits"),
        ("nfe = 4", "nfe = -1", "nfe"),
        ("count = 2", 'count = 2\n[files]\npaths = ["../secret.nii"]', "below --ct-data"),
        ("count = 2", 'count = 2\n[store]\nsplit = "rest"', "split"),
    ],
)
def test_nonsense_is_refused_by_name(before, after, says):
    with pytest.raises(ValueError, match=says):
        parse(GOOD.replace(before, after), ExperimentConfig)


@pytest.mark.parametrize(
    ("method", "function"),
    [(SirtMethod(), sirt), (CglsMethod(), cgls), (TvMethod(), total_variation)],
)
def test_the_defaults_of_classical_methods_are_those_of_their_functions(method, function):
    settings = {key: value for key, value in vars(method).items() if key not in ("kind", *SHARE)}
    parameters = inspect.signature(function).parameters
    assert settings == {key: parameters[key].default for key in settings}
