"""Work spread over the workers of a Dask cluster, which may die like any process.

The twin of `workers` for many machines. They need this package and the same folders under
the same names; only tasks and results travel. Dask gives the task of a dead worker to another
one; a task that takes several workers with it is given up.
"""

import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")

WAIT_SECONDS = 60.0
"""How long to wait for the first worker before the cluster counts as one without any."""


def run_on_cluster(
    work: Callable[[TaskT], ResultT], tasks: Sequence[TaskT], *, address: str
) -> Iterator[tuple[TaskT, ResultT | None]]:
    """Do tasks on a cluster; yields each with its result as it is done.

    Args:
        work: A function of a module that the workers can import. An exception it raises ends
            everything and is raised here.
        tasks: What to do.
        address: Of the scheduler, such as `tcp://host:8786`.

    Yields:
        A task and its result; `None` where workers died over it.

    Raises:
        ValueError: If Dask is not installed, with how to.
        OSError: If there is no such cluster, it has no worker, or it goes away.
    """
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError:
        raise ValueError("a Dask cluster needs Dask: pip install 'fewview[dask]'") from None
    return _run(distributed, work, tasks, address)


def _run(
    distributed: Any, work: Callable[[TaskT], ResultT], tasks: Sequence[TaskT], address: str
) -> Iterator[tuple[TaskT, ResultT | None]]:
    """Hand out all tasks; what is not done is called back whatever happens."""
    with _connected(distributed, address) as client:
        # Not pure: the result is what is on the disk afterwards, not what Dask remembers.
        futures = [client.submit(work, task, pure=False) for task in tasks]
        task_of = {future.key: task for future, task in zip(futures, tasks, strict=True)}
        try:
            for future in distributed.as_completed(futures, loop=client.loop):
                yield task_of[future.key], _result(distributed, future, address)
        finally:
            client.cancel(futures)


def _connected(distributed: Any, address: str) -> Any:
    """A client of the cluster; it has a worker."""
    try:
        client = distributed.Client(address, set_as_default=False)
    except (OSError, ValueError) as error:
        raise OSError(f"no Dask scheduler at {address}: {error}") from error
    try:
        client.wait_for_workers(1, timeout=WAIT_SECONDS)
    except OSError:  # a timeout is one
        client.close()
        raise OSError(f"the Dask cluster at {address} has no worker") from None
    return client


def _result(distributed: Any, future: Any, address: str) -> Any:
    """What became of a task; `None` where workers died over it."""
    if future.status not in ("finished", "error"):
        raise OSError(f"the Dask cluster at {address} went away; a later run goes on")
    error = future.exception() if future.status == "error" else None
    if isinstance(error, distributed.scheduler.KilledWorker):
        return None
    if error is not None:
        raise error
    return future.result()
