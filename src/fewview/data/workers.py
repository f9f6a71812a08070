"""Work spread over processes that may die without taking the rest with them.

Each worker process has its own pipe. A worker that crashes or is killed (a huge scan, no
memory left) costs the task in its hands and is replaced; a pool would hang or break. When
the main process ends, however it ends, its workers end with it.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Generic, TypeVar

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")


@dataclass
class _Worker(Generic[TaskT]):
    process: BaseProcess
    connection: Connection
    task: TaskT


def run_tasks(
    work: Callable[[TaskT], ResultT], tasks: Sequence[TaskT], *, workers: int
) -> Iterator[tuple[TaskT, ResultT | None]]:
    """Do tasks, several at a time; yields each with its result as it is done.

    Args:
        work: A function of a module; with its tasks and results it travels to fresh
            processes. An exception it raises ends everything and is raised here.
        tasks: What to do.
        workers: Number of processes. With 1, the work is done in this process.

    Yields:
        A task and its result; `None` where the process died over it.

    Raises:
        ValueError: If `workers` is less than 1.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    if workers == 1 or len(tasks) < 2:
        return ((task, work(task)) for task in tasks)
    return _run_in_processes(work, tasks, min(workers, len(tasks)))


def _run_in_processes(
    work: Callable[[TaskT], ResultT], tasks: Sequence[TaskT], workers: int
) -> Iterator[tuple[TaskT, ResultT | None]]:
    """Hand out tasks until all are done; ends the processes whatever happens."""
    waiting = deque(tasks)
    crew = [_start(work, waiting.popleft()) for _ in range(workers)]
    try:
        while crew:
            ready = set(wait([worker.connection for worker in crew]))
            for worker in [worker for worker in crew if worker.connection in ready]:
                task, result, error = worker.task, None, None
                with contextlib.suppress(EOFError, ConnectionResetError):  # dead: no result
                    result, error = worker.connection.recv()
                if error is not None:
                    raise error
                if waiting and _takes(worker, waiting[0]):
                    waiting.popleft()
                else:
                    _end(worker)
                    crew.remove(worker)
                    if waiting:
                        crew.append(_start(work, waiting.popleft()))
                yield task, result
    finally:
        for worker in crew:
            _end(worker)


def _start(work: Callable[[TaskT], ResultT], task: TaskT) -> _Worker[TaskT]:
    """A fresh process with its first task. Spawned: a fork would copy threads' locks."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, work), daemon=True)
    with _ctrl_c_ignored():
        process.start()
    theirs.close()
    worker = _Worker(process, ours, task)
    _takes(worker, task)  # if it is dead already, its end is found where its result is awaited
    return worker


def _takes(worker: _Worker[TaskT], task: TaskT) -> bool:
    """Hand a task to a worker; False if it has died, which may be after its last result."""
    try:
        worker.connection.send(task)
    except ConnectionError:
        return False
    worker.task = task
    return True


@contextlib.contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    """What starts now ignores Ctrl-C from its first moment: only this process handles it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are set in the main thread only
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end(worker: _Worker[TaskT]) -> None:
    worker.process.terminate()
    worker.process.join()
    worker.connection.close()


def _serve(connection: Connection, work: Callable[[TaskT], ResultT]) -> None:
    """Do what comes through the pipe until it closes."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        try:
            answer: tuple[ResultT | None, Exception | None] = (work(task), None)
        except Exception as error:  # noqa: BLE001 - raised in the main process
            answer = (None, error)
        connection.send(answer)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
