"""What an experiment has to do: one job per method, case, view count and seed, and its key.

A key is the hash of everything that determines a result, so that a result is never taken
for another's and never made twice.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fewview import __version__
from fewview.bundle import bundled_folder, bundled_models
from fewview.experiment.cases import Case, checksum_of
from fewview.experiment.config import ExperimentConfig
from fewview.experiment.methods import SHARE, Ceiling, Predictor, is_trained_by_seed, model_of
from fewview.experiment.prediction import draws_samples, loaded, why_not

CARD = "card.md"


@dataclass(frozen=True)
class Job:
    """One volume to be made and scored."""

    key: str
    prediction_key: str
    """As `key`, but without how it is scored."""

    name: str
    """Of the method."""

    method: Predictor | Ceiling
    case: Case
    num_views: int
    seed: int
    weights: str
    """Fingerprint of its model; empty without one."""


@dataclass
class Plan:
    """All jobs, and what will not be done, with the reason."""

    jobs: list[Job] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)
    """`method`, `num_views`, `reason`: the method does not do this."""

    failed: list[dict[str, Any]] = field(default_factory=list)
    """`method`, `case`, `num_views`, `seed`, `reason`: it should have worked."""


def make_plan(config: ExperimentConfig, cases: list[Case], device: str) -> Plan:
    """Lay out all jobs, case by case, so that a stopped experiment has whole cases.

    A method whose model cannot be read is a failure of that method and seed alone.
    """
    plan = Plan()
    wanted: list[tuple[str, Predictor | Ceiling, int, int, str]] = []
    for name, method in config.methods.items():
        for seed in _seeds(method, config):
            try:
                wanted += _of_seed(name, method, seed, config, plan)
            except (ValueError, OSError, RuntimeError) as error:
                plan.failed.append(failure(name, reason=str(error)) | {"seed": seed})
    for case in cases:
        for name, method, num_views, seed, weights in wanted:
            prediction_key = _hash(
                _identity(method, weights, case, num_views, seed, config, device)
            )
            scoring = {"scored": asdict(config.scored), "protocols": sorted(config.protocols)}
            key = _hash({"name": name, "prediction": prediction_key, **scoring})
            job = Job(key, prediction_key, name, method, case, num_views, seed, weights)
            plan.jobs.append(job)
    return plan


def failure(method: str, *, reason: str, job: Job | None = None) -> dict[str, Any]:
    """A failure as it is reported; without a job it concerns all of a method."""
    return {
        "method": method,
        "case": job.case.name if job else "",
        "num_views": job.num_views if job else 0,
        "seed": job.seed if job else 0,
        "reason": " ".join(reason.split()),
    }


def _of_seed(
    name: str, method: Predictor | Ceiling, seed: int, config: ExperimentConfig, plan: Plan
) -> list[tuple[str, Predictor | Ceiling, int, int, str]]:
    """A method with one seed at every view count it can do, with its weights' fingerprint."""
    found = []
    model = model_of(method, seed)
    weights = ""
    if model is not None:
        loaded(model, "cpu")  # what cannot be read fails here, once
        weights = fingerprint(model)
    for num_views in method.num_views or config.num_views:
        reason = None if isinstance(method, Ceiling) else why_not(method, num_views, seed)
        if reason is None:
            found.append((name, method, num_views, seed, weights))
            continue
        skip = {"method": name, "num_views": num_views, "reason": reason}
        if skip not in plan.skipped:
            plan.skipped.append(skip)
    return found


def _seeds(method: Predictor | Ceiling, config: ExperimentConfig) -> tuple[int, ...]:
    """The seeds a method runs with; 0 alone if it draws nothing."""
    seeds = method.seeds or config.seeds
    if is_trained_by_seed(method):
        return seeds
    if isinstance(method, Ceiling):
        return (0,)
    try:
        return seeds if draws_samples(method, seeds[0]) else (0,)
    except (ValueError, OSError, RuntimeError):
        return (0,)  # its model cannot be read, which is reported once


def model_folder(model: str) -> Path:
    """Where a model lies, by bundled name or folder."""
    return bundled_folder() / model if model in bundled_models() else Path(model)


def fingerprint(model: str) -> str:
    """The first 16 digits of the SHA-256 of a model's files, without its card."""
    digest = hashlib.sha256()
    for file in sorted(model_folder(model).iterdir()):
        if file.is_file() and file.name != CARD:
            digest.update(f"{file.name} {checksum_of(file)}\n".encode())
    return digest.hexdigest()[:16]


def _identity(
    method: Predictor | Ceiling,
    weights: str,
    case: Case,
    num_views: int,
    seed: int,
    config: ExperimentConfig,
    device: str,
) -> dict[str, Any]:
    """Everything that determines a prediction. A model's name does not; its weights do."""
    settings = {key: value for key, value in asdict(method).items() if key not in ("model", *SHARE)}
    return {
        "version": __version__,
        "method": settings,
        "weights": weights,
        "case": [case.kind, case.name, case.checksum],
        "num_views": num_views,
        "seed": seed,
        "geometry": [config.geometry, config.num_pixels, config.photons],
        "grid": asdict(config.grid),
        "device": device,
    }


def inputs_key(case: Case, config: ExperimentConfig) -> str:
    """Hash of everything that determines a case's truth and X-rays."""
    return _hash(
        {
            "version": __version__,
            "case": [case.kind, case.checksum],
            "num_views": sorted(config.num_views),
            "geometry": [config.geometry, config.num_pixels, config.photons],
        }
    )


def cost_key(job: Job, config: ExperimentConfig) -> str:
    """Hash of everything that determines the arithmetic of a method at a view count."""
    nowhere = Case("", job.case.kind, "", "")
    identity = _identity(job.method, job.weights, nowhere, job.num_views, 0, config, "")
    return _hash(identity)


def _hash(value: Mapping[str, Any]) -> str:
    """The first 24 digits of the SHA-256 of a value as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:24]
