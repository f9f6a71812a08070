"""A plan lists every job once, under a key that holds all that determines its result."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fewview.experiment.cases import Sources, list_cases, read_truth
from fewview.experiment.config import (
    CubeConfig,
    ExperimentConfig,
    FileCases,
    PhantomCases,
    StoreCases,
)
from fewview.experiment.methods import ConstantMethod, GridCeiling, MeanMethod, ModelMethod
from fewview.experiment.plan import make_plan, model_folder


def cheap(**changes: object) -> ExperimentConfig:
    config = ExperimentConfig(
        name="a test",
        reference="mean",
        methods={"mean": MeanMethod(), "truth": GridCeiling()},
        num_views=(1,),
        num_pixels=16,
        protocols=("hu3d", "x2ct"),
        phantoms=PhantomCases(count=2, size=32),
        grid=CubeConfig(size=16),
        scored=CubeConfig(size=16, extent_mm=320.0),
    )
    return replace(config, **changes)


def test_what_determines_a_result_is_in_its_key():
    cases = list_cases(cheap(), Sources())

    def keys(config: ExperimentConfig) -> set[str]:
        return {job.key for job in make_plan(config, cases, "cpu").jobs}

    first = keys(cheap())
    assert keys(cheap(name="renamed")) == first
    moved = [replace(case, checksum="other") for case in cases]
    assert first.isdisjoint(job.key for job in make_plan(cheap(), moved, "cpu").jobs)
    for changed in (
        cheap(num_pixels=24),
        cheap(photons=1e4),
        cheap(geometry="x2ct"),
        cheap(protocols=("hu3d",)),
        cheap(scored=replace(cheap().scored, size=24)),
        cheap(grid=replace(cheap().grid, size=24)),
    ):
        assert first.isdisjoint(keys(changed))


def test_a_models_weights_and_not_its_name_are_in_the_key(tmp_path):
    copied = Path(shutil.copytree(model_folder("fewview-64"), tmp_path / "copy"))
    cases = list_cases(cheap(), Sources())

    def keys(model: str) -> set[str]:
        methods = {"mean": ConstantMethod(), "m": ModelMethod(model=model, nfe=0)}
        config = replace(cheap(), methods=methods)
        return {job.key for job in make_plan(config, cases, "cpu").jobs if job.name == "m"}

    same = keys(str(copied))
    assert same == keys("fewview-64")
    (copied / "card.md").write_text("another card")
    assert keys(str(copied)) == same
    text = (copied / "config.toml").read_text()
    (copied / "config.toml").write_text(text + "\n# changed\n")
    assert keys(str(copied)).isdisjoint(same)


def test_only_methods_that_draw_have_seeds():
    methods = {
        "mean": ConstantMethod(),
        "head": ModelMethod(nfe=0),
        "sampled": ModelMethod(nfe=2),
    }
    config = replace(cheap(seeds=(3, 4)), methods=methods)
    jobs = make_plan(config, list_cases(config, Sources())[:1], "cpu").jobs
    assert [(job.name, job.seed) for job in jobs] == [
        ("mean", 0),
        ("head", 0),
        ("sampled", 3),
        ("sampled", 4),
    ]


def test_one_missing_seed_of_a_trained_method_leaves_the_others(tmp_path):
    shutil.copytree(model_folder("fewview-64"), tmp_path / "run-1")
    method = ModelMethod(model=str(tmp_path / "run-{seed}"), nfe=0)
    config = replace(cheap(seeds=(0, 1)), methods={"mean": ConstantMethod(), "m": method})
    plan = make_plan(config, list_cases(config, Sources())[:1], "cpu")
    assert [(job.name, job.seed) for job in plan.jobs] == [("mean", 0), ("m", 1)]
    assert [(one["method"], one["seed"]) for one in plan.failed] == [("m", 0)]


def test_store_and_file_cases_are_read_and_two_of_one_name_refused(tiny_store, ct_file):
    files = FileCases(paths=(ct_file.name,))
    config = cheap(phantoms=None, store=StoreCases(split="val"), files=files)
    sources = Sources(tiny_store, ct_file.parent)
    cases = list_cases(config, sources)
    assert [case.kind for case in cases] == ["store", "file"]
    assert [read_truth(case, config, sources).shape[2] for case in cases] == [32, 24]
    twice = replace(config, files=FileCases(paths=(ct_file.name, f"./{ct_file.name}")))
    with pytest.raises(ValueError, match="two cases"):
        list_cases(twice, sources)


def test_a_method_may_run_a_part_of_the_experiment_alone():
    methods = {
        "mean": MeanMethod(num_views=(2,)),
        "sampled": ModelMethod(nfe=2, num_views=(2,), seeds=(4,)),
        "all": ModelMethod(nfe=2, samples=2),
    }
    config = replace(cheap(num_views=(1, 2), seeds=(3, 4)), methods=methods)
    jobs = make_plan(config, list_cases(config, Sources())[:1], "cpu").jobs
    assert [(job.name, job.num_views, job.seed) for job in jobs] == [
        ("mean", 2, 0),
        ("sampled", 2, 4),
        *(("all", num_views, seed) for seed in (3, 4) for num_views in (1, 2)),
    ]


def test_results_do_not_depend_on_which_part_a_method_runs():
    cases = list_cases(cheap(), Sources())[:1]

    def keys(**share: tuple[int, ...]) -> set[str]:
        config = cheap(num_views=(1, 2), methods={"mean": MeanMethod(**share)})
        return {job.key for job in make_plan(config, cases, "cpu").jobs}

    assert keys(num_views=(2,)) < keys()
    assert keys(seeds=(0,)) == keys()


@pytest.mark.parametrize(
    ("share", "message"),
    [
        ({"num_views": (4,)}, "mean: num_views is 4, not one of the experiment's; it has (1,)"),
        ({"seeds": (0, 7)}, "mean: seeds is 7, not one of the experiment's; it has (0,)"),
        ({"seeds": ()}, "mean: seeds is empty; it has (0,)"),
    ],
)
def test_a_method_cannot_run_what_the_experiment_has_not(share, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        cheap(methods={"mean": MeanMethod(**share)})
