"""Work on a Dask cluster ends with all of it done, whichever worker dies."""

import os
import signal
import sys
from contextlib import contextmanager
from types import SimpleNamespace
from unittest.mock import MagicMock, patch

import numpy as np
import pytest

from fewview.data.cluster import run_on_cluster
from fewview.data.images import write_volume
from fewview.data.prepare import prepare
from fewview.data.store import open_store
from fewview.data.volume import Volume


class KilledWorker(Exception):
    """What Dask answers with when a task has taken its workers with it."""


def done(work, task, *, pure):
    """A task done at once, as the future that Dask hands out."""
    try:
        outcome = work(task)
    except Exception as error:  # noqa: BLE001
        outcome = error
    status = "error" if isinstance(outcome, Exception) else "finished"
    return SimpleNamespace(
        key=repr(task),
        status="lost" if outcome == "gone" else status,
        exception=lambda: outcome,
        result=lambda: outcome,
    )


@pytest.fixture
def client(monkeypatch):
    """Stands in for Dask: everything is done at once, in this process."""
    client = MagicMock()
    client.__enter__.return_value = client
    client.submit.side_effect = done
    fake = SimpleNamespace(
        Client=MagicMock(return_value=client),
        as_completed=lambda futures, loop: reversed(futures),
        scheduler=SimpleNamespace(KilledWorker=KilledWorker),
    )
    monkeypatch.setitem(sys.modules, "distributed", fake)
    client.of = fake.Client
    return client


def killed_by_zero(number: int) -> float:
    if number == 0:
        raise KilledWorker
    return 1.0 / number


def test_every_task_comes_back_and_one_that_kills_workers_comes_back_empty(client):
    results = list(run_on_cluster(killed_by_zero, [1, 0, 2], address="tcp://here:8786"))
    assert results == [(2, 0.5), (0, None), (1, 1.0)]
    client.of.assert_called_once_with("tcp://here:8786", set_as_default=False)


def test_an_error_of_the_work_is_raised_here_and_the_rest_called_back(client):
    with pytest.raises(SyntaxError):
        list(run_on_cluster(eval, ["1 + 1", "1 +"], address="tcp://here:8786"))
    assert client.cancel.called


def test_a_cluster_that_is_not_there_is_one_line(client):
    with pytest.raises(OSError, match="went away; a later run goes on"):
        list(run_on_cluster(eval, ["'gone'"], address="tcp://here:1"))
    client.wait_for_workers.side_effect = TimeoutError
    with pytest.raises(OSError, match=r"tcp://here:1 has no worker"):
        list(run_on_cluster(eval, ["1"], address="tcp://here:1"))
    client.of.side_effect = OSError("timed out")
    with pytest.raises(OSError, match=r"no Dask scheduler at tcp://here:1: timed out"):
        list(run_on_cluster(eval, ["1"], address="tcp://here:1"))


def test_without_dask_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match=r"pip install 'fewview\[dask\]'"):
        run_on_cluster(abs, [1], address="tcp://here:8786")


@contextmanager
def two_workers():
    """A cluster of two processes on this machine."""
    distributed = pytest.importorskip("distributed")
    # Dask sets OMP_NUM_THREADS=1 and leaves it; later tests start processes that must not see it.
    with (
        patch.dict(os.environ),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
    ):
        yield cluster, distributed


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Dask's own, about sockets of the worker that is killed
def test_a_killed_dask_worker_costs_nothing(tmp_path):
    axis = np.linspace(-1.0, 1.0, 24)
    distance = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    for number in range(8):
        ball = np.where(distance < 0.8, -80.0 + number, -1000.0).astype(np.float32)
        write_volume(Volume(ball, np.diag([5.0, 5.0, 5.0, 1.0])), tmp_path / f"in/{number}.nii")
    (tmp_path / "in" / "bad.nii").write_text("not a CT")
    with two_workers() as (cluster, distributed):
        with distributed.Client(cluster, set_as_default=False) as client:
            processes = list(client.run(os.getpid).values())

        def kill_one(num_done, num_all, name):
            if num_done == 1:
                os.kill(processes[0], signal.SIGKILL)

        address = cluster.scheduler_address
        report = prepare(
            [tmp_path / "in"], tmp_path / "out", size=80, dask=address, progress=kill_one
        )
    assert report.num_prepared == 8
    assert [source for source, _ in report.failures] == ["in/bad.nii"]
    assert [open_store(tmp_path / "out").read(str(n)).hu.max() for n in range(8)] == [
        pytest.approx(-80.0 + number, abs=1.0) for number in range(8)
    ]
