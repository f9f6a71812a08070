"""Runs an experiment: plans it, does what is not done yet, reports.

Killed at any moment, it goes on where it was: every finished case is a file of its own.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fewview import config as config_files
from fewview.data.files import replacing_file
from fewview.data.workers import run_tasks
from fewview.evaluation.protocols import protocol_names
from fewview.experiment.cases import Case, Sources, list_cases
from fewview.experiment.ceilings import with_ceilings
from fewview.experiment.config import ExperimentConfig
from fewview.experiment.facts import model_facts, store_facts
from fewview.experiment.methods import model_of
from fewview.experiment.plan import Job, Plan, cost_key, failure, make_plan
from fewview.experiment.results import (
    CONFIG,
    COSTS,
    ERRORS,
    PLAN,
    RESULTS,
    WORK,
    read_result,
    write_json,
)
from fewview.experiment.work import Place, Task, do
from fewview.records import RECORD, is_record_of, write_record

DIED = "the process died over it (killed, or out of memory)"

Progress = Callable[[str, int, int, str], None]
"""Called with stage, pieces done, all pieces, and the last one's name."""


def run_experiment(
    config: ExperimentConfig,
    out: Path,
    *,
    sources: Sources,
    workers: int = 1,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Plan:
    """Do all that is not done yet; writes per-case results and `plan.json`, no report.

    Ceilings of autoencoders come in beside what `config` names; see `with_ceilings`.

    Args:
        config: What to compare.
        out: Folder of the experiment: new, empty, or one that this function wrote.
        sources: Where the cases are.
        workers: Processes; they share the processor's cores.
        device: Where models compute.
        progress: Shows how far the stages `X-rays` and `results` are.

    Returns:
        The plan, with what was skipped and what failed.

    Raises:
        ValueError: If there are no such cases or protocols, or `out` holds something else.
    """
    protocol_names(config.protocols)
    cases = list_cases(config, sources)
    config = with_ceilings(config)
    _claim(out, config, sources, device)
    plan = make_plan(config, cases, device)
    threads = None if workers == 1 else max(1, num_cores() // workers)
    place = Place(out, config, sources, device, threads)
    _write_plan(place, cases, plan, workers)  # a stopped run can be reported too
    _do_all(plan, place, workers, progress)
    _write_plan(place, cases, plan, workers)
    if not config.keep_volumes:
        shutil.rmtree(out / WORK, ignore_errors=True)
    return plan


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _claim(out: Path, config: ExperimentConfig, sources: Sources, device: str) -> None:
    """Make the folder, or see that it is an experiment's, and write what it is."""
    if out.is_dir() and any(out.iterdir()) and not is_record_of(out / RECORD, "experiment"):
        raise ValueError(f"{out} is not empty and holds no experiment; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    inputs = [path for path in (sources.store, sources.ct_data) if path is not None]
    settings = asdict(config)
    write_record(out / RECORD, "experiment", settings=settings, inputs=inputs, device=device)
    with replacing_file(out / CONFIG) as temporary:
        temporary.write_text(config_files.to_toml(config), encoding="utf-8")
    for name in (RESULTS, COSTS, ERRORS):
        (out / name).mkdir(exist_ok=True)


def _do_all(plan: Plan, place: Place, workers: int, progress: Progress | None) -> None:
    """Inputs of cases first, then results, with a counted run per method and view count."""
    finished = {job.key for job in plan.jobs if _is_finished(job, place)}
    waiting = [job for job in plan.jobs if job.key not in finished]
    costs = {cost_key(job, place.config): job for job in reversed(plan.jobs)}
    uncounted = [
        job for key, job in costs.items() if not (place.out / COSTS / f"{key}.json").is_file()
    ]
    needed = {job.case: job for job in [*waiting, *uncounted] if not place.inputs(job).is_dir()}
    lost: set[Case] = set()
    inputs = [Task("inputs", job, place) for job in needed.values()]
    for num_done, task in enumerate(_done(plan, inputs, workers, lost), start=1):
        _tell(progress, "X-rays", num_done, len(inputs), task.job.case.name)
    tasks = [Task("result", job, place) for job in waiting if job.case not in lost]
    tasks += [Task("cost", job, place) for job in uncounted if job.case not in lost]
    num_done = len(finished)
    for task in _done(plan, tasks, workers, lost):
        if task.what == "result":
            num_done += 1
            what = f"{task.job.name}, {task.job.case.name}, views {task.job.num_views}"
            _tell(progress, "results", num_done, len(plan.jobs), what)


def _tell(progress: Progress | None, stage: str, num_done: int, num_all: int, what: str) -> None:
    """Show progress if anybody looks."""
    if progress is not None:
        progress(stage, num_done, num_all, what)


def _is_finished(job: Job, place: Place) -> bool:
    """Whether a job's result and picture are there and whole."""
    path = place.out / RESULTS / f"{job.key}.json"
    return read_result(path) is not None and path.with_suffix(".png").is_file()


def _done(plan: Plan, tasks: list[Task], workers: int, lost: set[Case]) -> Iterator[Task]:
    """Does tasks; yields each when it is over and notes failures.

    Args:
        plan: Gets the failures.
        tasks: What to do.
        workers: Processes.
        lost: Gets the cases whose inputs could not be made.
    """
    for task, reason in run_tasks(do, tasks, workers=workers):
        if reason != "":
            _note(plan, task, DIED if reason is None else reason)
            if task.what == "inputs":
                lost.add(task.job.case)
        yield task


def _note(plan: Plan, task: Task, reason: str) -> None:
    """Note a failure; a case without inputs is noted once, not once per method."""
    entry = failure(task.job.name, reason=reason, job=task.job)
    match task.what:
        case "inputs":
            entry |= {"method": "", "num_views": 0, "seed": 0}
        case "cost":
            entry |= {"reason": f"counting FLOP: {entry['reason']}"}
    plan.failed.append(entry)


def _write_plan(place: Place, cases: list[Case], plan: Plan, workers: int) -> None:
    """Write what the report needs beside the results."""
    config, sources = place.config, place.sources
    costs: dict[str, dict[str, str]] = {}
    for job in reversed(plan.jobs):
        costs.setdefault(job.name, {})[str(job.num_views)] = cost_key(job, config)
    content: dict[str, Any] = {
        "results": [job.key for job in plan.jobs],
        "skipped": plan.skipped,
        "failed": plan.failed,
        "cases": [asdict(case) for case in cases],
        "costs": costs,
        "workers": workers,
        "models": _models(config),
        "store": store_facts(sources.store) if sources.store and config.store else None,
    }
    write_json(place.out / PLAN, content)


def _models(config: ExperimentConfig) -> dict[str, Any]:
    """What is known of every model that could be read, by method."""
    found = {}
    for name, method in config.methods.items():
        model = model_of(method, (method.seeds or config.seeds)[0])
        if method.kind == "model" and model is not None:
            try:
                found[name] = model_facts(model)
            except (ValueError, OSError):
                continue  # reported as a failure of the method already
    return found
