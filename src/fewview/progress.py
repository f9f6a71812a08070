"""Progress of long work: a bar with time left on a terminal, plain lines when piped."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fewview.terminal import complain

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_PLAIN_SECONDS = 5.0  # piped output gets at most one line of progress in this time


class Steps:
    """Progress of work in counted steps: a bar with time left, or plain lines when piped."""

    def __init__(self, title: str, bar: "Progress | None") -> None:
        """Start with nothing done; `bar` is None when stderr is not a terminal."""
        self._title = title
        self._bar = bar
        self._task: TaskID | None = None
        self._began = (0, time.monotonic())  # steps done at first (a resumed run), and when
        self._next_line = 0.0

    def __call__(self, num_done: int, num_all: int, shown: str = "") -> None:
        """Show that `num_done` of `num_all` steps are done, and a word on the last one."""
        if self._bar is None:
            self._line(num_done, num_all, shown)
            return
        if self._task is None:
            self._task = self._bar.add_task(
                self._title, total=num_all, completed=num_done, shown=""
            )
        self._bar.update(
            self._task, description=self._title, completed=num_done, total=num_all, shown=shown
        )

    def staged(self, stage: str, num_done: int, num_all: int, shown: str) -> None:
        """The same for work in named stages; each gets a count of its own."""
        if stage != self._title:
            self._title, self._task = stage, None
            self._began, self._next_line = (num_done, time.monotonic()), 0.0
        self(num_done, num_all, shown)

    def _line(self, num_done: int, num_all: int, shown: str) -> None:
        """Print one plain line, but not too often."""
        now = time.monotonic()
        if num_done < num_all and now < self._next_line:
            return
        self._next_line = now + _PLAIN_SECONDS
        first, began = self._began
        left = ""
        if first < num_done < num_all:
            seconds = (now - began) / (num_done - first) * (num_all - num_done)
            left = f", {_duration(seconds)} left"
        complain(f"{self._title}: {num_done} of {num_all}{left} {shown}")


def _duration(seconds: float) -> str:
    """A time as a person says it: 40 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


@contextmanager
def steps(title: str) -> Iterator[Steps]:
    """Show progress on stderr while the body runs; call what it yields after each step."""
    if not sys.stderr.isatty():
        yield Steps(title, None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed} of {task.total}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[shown]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield Steps(title, bar)
