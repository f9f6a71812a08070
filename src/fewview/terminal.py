"""What a person at the terminal sees: one line per failure, warning and step of progress.

Commands call the Python API and let its errors pass; here they become one line on stderr and
an exit code. Imports no torch.
"""

import logging
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

import typer

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

INTERRUPTED = 130  # 128 + SIGINT, as shells report it
_PLAIN_SECONDS = 5.0  # piped output gets at most one line of progress in this time


def exit_code_of(action: Callable[[], object], *, verbose: bool = False) -> int:
    """Run a command; a failure becomes one line on stderr and an exit code.

    Args:
        action: Runs the command; may return an exit code of its own.
        verbose: Show the traceback of a failure before its line.

    Returns:
        0 done, 1 failed, 2 wrong usage, 130 interrupted. Exceptions that mean a defect of
        ours are not caught here; see `report_defects`.
    """
    try:
        code = action()
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except typer.TyperException as error:
        return _usage_failure(error)
    except BrokenPipeError:
        _close_stdout()
        return 1
    except (ValueError, OSError, MemoryError) as error:
        return _failure(error, verbose)
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        return _failure(MemoryError(), verbose)
    if code == INTERRUPTED:
        complain("interrupted; nothing half-written is left behind")
    return code if isinstance(code, int) else 0


def complain(message: str) -> None:
    """Print one line on stderr."""
    typer.echo(f"fewview: {' '.join(message.split())}", err=True)


def _usage_failure(error: typer.TyperException) -> int:
    """One line for wrong usage; a command called without anything has shown its help."""
    context = getattr(error, "ctx", None)
    text = error.format_message().strip().rstrip(".")
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(text, err=True)
    else:
        help_for = f" (fewview {context.info_name} --help)" if context and context.parent else ""
        complain(f"{text}{help_for}")
    return error.exit_code


def _failure(error: Exception, verbose: bool) -> int:
    """One line for what went wrong."""
    if verbose:
        traceback.print_exc()
    complain(describe(error))
    return 1


def describe(error: Exception) -> str:
    """What went wrong, in words for the user."""
    if isinstance(error, MemoryError):
        return "not enough memory; a smaller --size or fewer --samples need less"
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror[0].lower()}{error.strerror[1:]}"
    return str(error) or type(error).__name__


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch ran out of memory, which it says by a RuntimeError."""
    return "allocate memory" in str(error) or "out of memory" in str(error)


def _close_stdout() -> None:
    """Stop Python from complaining at exit that nobody reads stdout any more."""
    if sys.stdout is sys.__stdout__:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def report_defects(verbose: bool) -> None:
    """Make an exception nobody expected one line too, unless a traceback is asked for."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if verbose:
            traceback.print_exception(kind, error, trace)
        complain(
            f"unexpected {kind.__name__}: {error}. This is a defect of fewview; "
            "please report it with what -v shows"
        )

    sys.excepthook = hook


class _Lines(logging.Handler):
    """Log messages as lines on whatever stderr is when they come."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        word = "warning: " if record.levelno >= logging.WARNING else ""
        complain(f"{word}{record.getMessage()}")


def speak_in_lines() -> None:
    """Send warnings and log messages to stderr as single lines; each warning once."""

    def show(
        message: Warning | str, category: type[Warning], *_: Any, file: TextIO | None = None
    ) -> None:
        complain(f"warning: {message}")

    warnings.showwarning = show
    logger = logging.getLogger("fewview")
    logger.handlers = [_Lines()]
    logger.setLevel(logging.INFO)


class Steps:
    """Progress of work in counted steps: a bar with time left, or plain lines when piped."""

    def __init__(self, title: str, bar: "Progress | None") -> None:
        """Start with nothing done; `bar` is None when stderr is not a terminal."""
        self._title = title
        self._bar = bar
        self._task: TaskID | None = None
        self._last_line = 0.0

    def __call__(self, num_done: int, num_all: int, name: str = "") -> None:
        """Show that `num_done` of `num_all` steps are done, the last one being `name`."""
        if self._bar is not None:
            if self._task is None:
                self._task = self._bar.add_task(self._title, total=num_all)
            self._bar.update(self._task, completed=num_done, total=num_all)
        elif num_done == num_all or time.monotonic() - self._last_line > _PLAIN_SECONDS:
            self._last_line = time.monotonic()
            complain(f"{self._title}: {num_done} of {num_all} {name}")


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
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield Steps(title, bar)
