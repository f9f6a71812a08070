"""Every autoencoder that decodes volumes of a method has its ceiling in the tables, once."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fewview.bundle import load_bundle, save_bundle
from fewview.experiment.cases import Sources, list_cases
from fewview.experiment.ceilings import with_ceilings
from fewview.experiment.config import CubeConfig, ExperimentConfig, PhantomCases
from fewview.experiment.methods import (
    AutoencoderCeiling,
    ConstantMethod,
    Method,
    ModelMethod,
)
from fewview.experiment.plan import make_plan
from fewview.experiment.report import report_experiment
from fewview.experiment.run import run_experiment


def comparing(**methods: Method) -> ExperimentConfig:
    return ExperimentConfig(
        name="a test",
        reference="mean",
        methods={"mean": ConstantMethod(), **methods},
        num_views=(2,),
        num_pixels=16,
        phantoms=PhantomCases(count=1, size=32),
        grid=CubeConfig(size=16),
        scored=CubeConfig(size=16, extent_mm=320.0),
    )


@pytest.fixture(scope="module")
def model(tiny_run: Path) -> str:
    """The folder of a model that samples."""
    return str(tiny_run / "model")


def changed(model: str, part: str, folder: Path, by: float = 1.0) -> str:
    """A copy of a model with other weights in one part."""
    bundle = load_bundle(model)
    next(getattr(bundle.networks, part).parameters()).add_(by)
    save_bundle(folder, bundle.config, bundle.networks, bundle.card)
    return str(folder)


def with_head(model: str, head: str, folder: Path) -> str:
    """A copy of a model with a head of its own, and another autoencoder than any other head's."""
    bundle = load_bundle(changed(model, "autoencoder", folder / head, by=len(head) / 8))
    config = replace(
        bundle.config, head=head, sampler=replace(bundle.config.sampler, num_samples=0)
    )
    save_bundle(folder / head, config, bundle.networks, bundle.card, force=True)
    return str(folder / head)


def test_a_coded_head_has_the_ceiling_of_its_autoencoder_and_an_estimate_has_none(model, tmp_path):
    coded, estimate = (with_head(model, head, tmp_path) for head in ("coded", "estimate"))
    found = with_ceilings(
        comparing(
            plain=ModelMethod(model=estimate),
            default=ModelMethod(model=coded),
            head=ModelMethod(model=coded, nfe=0),
            sampled=ModelMethod(model=coded, nfe=1),
        )
    )
    assert [*found.methods] == [
        "mean",
        "plain",
        "default",
        "default autoencoder",
        "head",
        "sampled",
    ]
    assert found.methods["default autoencoder"] == AutoencoderCeiling(model=coded)
    alone = with_ceilings(comparing(head=ModelMethod(model=coded, nfe=0)))
    assert "head autoencoder" in alone.methods


def test_what_decodes_samples_has_one_ceiling_beside_the_first_that_it_bounds(model, tmp_path):
    denoiser = changed(model, "denoiser", tmp_path / "denoiser")
    autoencoder = changed(model, "autoencoder", tmp_path / "autoencoder")
    found = with_ceilings(
        comparing(
            head=ModelMethod(model=model, nfe=0),
            one=ModelMethod(model=model, nfe=1),
            two=ModelMethod(model=model, nfe=2),
            other=ModelMethod(model=denoiser, nfe=1),
            sharper=ModelMethod(model=autoencoder, nfe=1),
            missing=ModelMethod(model="not-there"),
        )
    )
    assert [*found.methods] == [
        *("mean", "head", "one", "one autoencoder", "two", "other"),
        *("sharper", "sharper autoencoder", "missing"),
    ]
    assert found.methods["sharper autoencoder"] == AutoencoderCeiling(model=autoencoder)
    assert with_ceilings(found) == found


def test_a_ceiling_that_is_named_is_not_added(model, tmp_path):
    copied = str(shutil.copytree(model, tmp_path / "copy"))
    config = comparing(
        sampled=ModelMethod(model=model, nfe=1), top=AutoencoderCeiling(model=copied)
    )
    assert with_ceilings(config) == config


def test_runs_of_several_seeds_have_one_ceiling_over_them_or_the_one_they_share(model, tmp_path):
    for seed in (0, 1):
        shutil.copytree(model, tmp_path / f"same-{seed}")
        changed(model, "autoencoder", tmp_path / f"other-{seed}", by=1.0 + seed)
    for word, place in (("same", "same-0"), ("other", "other-{seed}")):
        method = ModelMethod(model=str(tmp_path / f"{word}-{{seed}}"), nfe=1)
        alone = ModelMethod(model=str(tmp_path / f"{word}-0"), nfe=2)
        found = with_ceilings(replace(comparing(sampled=method, alone=alone), seeds=(0, 1)))
        assert found.methods["sampled autoencoder"].model == str(tmp_path / place)
        assert "alone autoencoder" not in found.methods


def test_a_name_that_is_taken_is_not_taken_again(model):
    methods = {"one": ModelMethod(model=model, nfe=1), "one autoencoder": ConstantMethod(hu=0.0)}
    assert "one autoencoder ceiling" in with_ceilings(comparing(**methods)).methods


def test_the_ceiling_is_in_the_tables_and_changes_no_other_result(model, tmp_path):
    config = comparing(sampled=ModelMethod(model=model, nfe=1))
    planned = make_plan(config, list_cases(config, Sources()), "cpu")
    done = run_experiment(config, tmp_path / "out", sources=Sources())
    assert done.failed == []
    assert {job.key for job in planned.jobs} < {job.key for job in done.jobs}
    found = {entry.method: entry.ceiling for entry in report_experiment(tmp_path / "out")}
    assert found == {"mean": False, "sampled": False, "sampled autoencoder": True}
    tables = (tmp_path / "out" / "tables.md").read_text()
    assert "| sampled autoencoder (ceiling: sees the truth) |" in tables
