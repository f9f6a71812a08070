"""Work in several processes ends with all of it done, whoever dies."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from fewview.data.workers import run_tasks

WORK_FOR_EVER = """
import time
from fewview.data.workers import run_tasks
if __name__ == "__main__":
    for _ in run_tasks(time.sleep, [0, 60, 60, 60], workers=2):
        print("one done", flush=True)
"""


@pytest.mark.parametrize("workers", [1, 2, 9])
def test_every_task_comes_back_with_its_result(workers):
    assert sorted(run_tasks(abs, [-4, -3, -2, -1], workers=workers)) == [
        (-4, 4),
        (-3, 3),
        (-2, 2),
        (-1, 1),
    ]


def test_a_process_that_dies_costs_its_own_task_only():
    die = "__import__('os')._exit(3)"
    results = list(run_tasks(eval, ["1 + 1", die, "1 + 2", die, "1 + 3"], workers=2))
    assert sorted(results, key=lambda result: str(result[1])) == [
        ("1 + 1", 2),
        ("1 + 2", 3),
        ("1 + 3", 4),
        (die, None),
        (die, None),
    ]


def answer_or_die(task: str) -> str:
    """Numbers come back; at the name of a file the process waits for it, answers and is gone."""
    if task.isdigit():
        return task
    may_die = Path(task)
    deadline = time.monotonic() + 60.0
    while not may_die.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    send = Connection.send

    def send_and_die(connection: Connection, answer: object) -> None:
        send(connection, answer)
        os._exit(3)

    Connection.send = send_and_die
    return "answered"


def test_a_process_that_dies_after_its_answer_costs_nothing(tmp_path):
    may_die = tmp_path / "may die"
    work = ["0", "1", "2", "3"]
    work.insert(1, str(may_die))
    found = run_tasks(answer_or_die, work, workers=2)
    results = [next(found)[1]]
    may_die.touch()
    deadline = time.monotonic() + 60.0
    while len(multiprocessing.active_children()) > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    results += [result for _, result in found]
    assert sorted(map(str, results)) == ["0", "1", "2", "3", "answered"]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_is_raised_here_and_no_process_stays(workers):
    with pytest.raises(ZeroDivisionError):
        list(run_tasks(eval, ["1 / 0", "__import__('time').sleep(60)"], workers=workers))
    assert multiprocessing.active_children() == []


def test_nothing_to_do_is_done_at_once():
    assert list(run_tasks(abs, [], workers=4)) == []


def test_fewer_than_one_worker_is_refused():
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        run_tasks(abs, [1], workers=0)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_busy_workers_end_with_the_process_that_started_them(how):
    process = subprocess.Popen(
        [sys.executable, "-c", WORK_FOR_EVER],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "one done\n"
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    if how == signal.SIGINT:
        os.killpg(process.pid, how)  # as a terminal does
    else:
        process.send_signal(how)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert errors.count("Traceback") == (how == signal.SIGINT), "workers have nothing to say"
    assert len(children) >= 2
    deadline = time.monotonic() + 60.0
    while any(map(is_alive, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, children))


def is_alive(process: str) -> bool:
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
