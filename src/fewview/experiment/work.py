"""One piece of an experiment's work, done in a process of its own choosing.

A prediction is made from views alone and written as a file; only then is the truth's file
opened, by `scoring`. What goes wrong becomes the reason that is reported.
"""

import json
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from fewview import __version__
from fewview.data.files import replacing_file
from fewview.data.images import read_volume, write_volume
from fewview.data.volume import Volume
from fewview.experiment.cases import Sources, code_of, read_some_views, write_case
from fewview.experiment.ceilings import ceiling
from fewview.experiment.config import ExperimentConfig
from fewview.experiment.cost import (
    count_flop,
    peak_device_mb,
    peak_memory_mb,
    reset_peak_memory,
)
from fewview.experiment.methods import Ceiling, model_of
from fewview.experiment.plan import Job, cost_key, inputs_key
from fewview.experiment.prediction import grid_about, loaded, predict
from fewview.experiment.results import (
    COSTS,
    ERRORS,
    RESULTS,
    WORK,
    Result,
    write_json,
    write_result,
)
from fewview.experiment.scoring import score


@dataclass(frozen=True)
class Place:
    """Where an experiment runs and what it reads."""

    out: Path
    config: ExperimentConfig
    sources: Sources
    device: str
    num_threads: int | None
    """Threads of this process; None leaves them as they are."""

    def inputs(self, job: Job) -> Path:
        """The folder with a job's truth and X-rays."""
        return self.out / WORK / "cases" / inputs_key(job.case, self.config)

    def prediction(self, job: Job) -> Path:
        """The file of a job's volume."""
        return self.out / WORK / "predictions" / f"{job.prediction_key}.nii.gz"


@dataclass(frozen=True)
class Task:
    """One piece of work on a job."""

    what: Literal["inputs", "result", "cost"]
    job: Job
    place: Place


def do(task: Task) -> str:
    """Do a task; returns the reason if it failed, else an empty text.

    The traceback of a failure is kept in the folder `errors`.
    """
    if task.place.num_threads is not None:
        torch.set_num_threads(task.place.num_threads)
    error_file = task.place.out / ERRORS / f"{task.what}-{task.job.key}.txt"
    try:
        match task.what:
            case "inputs":
                folder = task.place.inputs(task.job)
                write_case(task.job.case, task.place.config, task.place.sources, folder)
            case "result":
                _make_result(task.job, task.place)
            case "cost":
                _make_cost(task.job, task.place)
    except Exception as error:  # noqa: BLE001 - one failing method or case must not stop the rest
        with replacing_file(error_file) as temporary:
            temporary.write_text(traceback.format_exc(), encoding="utf-8")
        return str(error) or type(error).__name__
    error_file.unlink(missing_ok=True)
    return ""


def _make_result(job: Job, place: Place) -> None:
    """Predict, write, score, write."""
    views = read_some_views(place.inputs(job), job.num_views)
    volume, truth = place.prediction(job), place.inputs(job) / "truth.nii.gz"
    cost = _kept_cost(job, place)
    if cost is None:
        cost = _predicted(job, place)
        write_json(volume.with_name(f"{job.prediction_key}.json"), cost)
    folder = place.out / RESULTS
    scores, notes = score(
        volume,
        truth,
        views,
        place.config.scored,
        place.config.protocols,
        folder / f"{job.key}.png",
    )
    result = Result(
        key=job.key,
        method=job.name,
        ceiling=isinstance(job.method, Ceiling),
        case=job.case.name,
        num_views=job.num_views,
        seed=job.seed,
        scores=scores,
        seconds=float(cost["seconds"] or 0.0),
        nfe=int(cost["nfe"] or 0),
        peak_memory_mb=cost["peak_memory_mb"],
        peak_device_mb=cost["peak_device_mb"],
        device=place.device,
        num_threads=int(cost["num_threads"] or 1),
        version=__version__,
        source=code_of(),
        notes=tuple(notes),
    )
    write_result(folder, result)
    if not place.config.keep_volumes:
        volume.unlink(missing_ok=True)
        volume.with_name(f"{job.prediction_key}.json").unlink(missing_ok=True)


def _kept_cost(job: Job, place: Place) -> dict[str, float | None] | None:
    """What a finished prediction cost; None if there is no finished prediction."""
    volume = place.prediction(job)
    record = volume.with_name(f"{job.prediction_key}.json")
    if not (volume.is_file() and record.is_file()):
        return None
    found: dict[str, float | None] = json.loads(record.read_text(encoding="utf-8"))
    return found


def _predicted(job: Job, place: Place) -> dict[str, float | None]:
    """Make and write a job's volume; returns what it cost."""
    model = model_of(job.method, job.seed)
    if model is not None:
        loaded(model, place.device)  # reading the weights is not part of the time
    can_measure = reset_peak_memory(place.device)
    started = time.perf_counter()
    volume, nfe = _volume(job, place)
    seconds = time.perf_counter() - started
    peak = peak_memory_mb() if can_measure else None
    write_volume(volume, place.prediction(job))
    return {
        "seconds": seconds,
        "nfe": float(nfe),
        "peak_memory_mb": peak,
        "peak_device_mb": peak_device_mb(place.device),
        "num_threads": float(torch.get_num_threads()),
    }


def _volume(job: Job, place: Place) -> tuple[Volume, int]:
    """A job's volume and denoiser calls. Only a ceiling is given the truth."""
    folder = place.inputs(job)
    views = read_some_views(folder, job.num_views)
    if not isinstance(job.method, Ceiling):
        return predict(job.method, views, place.config.grid, seed=job.seed, device=place.device)
    grid = grid_about(views, place.config.grid)
    truth = read_volume(folder / "truth.nii.gz")
    return ceiling(job.method, truth, grid, seed=job.seed, device=place.device), 0


def _make_cost(job: Job, place: Place) -> None:
    """Count the arithmetic of a method at a view count, in a run that is not timed."""
    flop = count_flop(lambda: _volume(job, place))
    write_json(place.out / COSTS / f"{cost_key(job, place.config)}.json", {"flop": flop})
