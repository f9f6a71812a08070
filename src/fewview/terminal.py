"""What a person at the terminal sees of failures and warnings: one line each.

Commands call the Python API and let its errors pass; here they become one line on stderr and
an exit code. Imports no torch.
"""

import logging
import os
import sys
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any

import typer
from typer.core import TyperGroup

INTERRUPTED = 130  # 128 + SIGINT, as shells report it


class CommandGroup(TyperGroup):
    """A group of commands; a failure of any becomes one line and an exit code."""

    def main(self, args: Any = None, *rest: Any, **options: Any) -> Any:
        """Run the command line `args` and exit; `-v` may stand anywhere in it."""
        given = sys.argv[1:] if args is None else list(args)
        words = [word for word in given if word not in ("-v", "--verbose")]
        verbose = len(words) < len(given)
        options["standalone_mode"] = False
        speak_in_lines()
        report_defects(verbose)
        run = super().main
        sys.exit(exit_code_of(lambda: run(words, *rest, **options), verbose=verbose))


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
    """Whether torch ran out of memory, which it says by a RuntimeError.

    The same words as in `training.memory`, which imports torch.
    """
    text = str(error).strip()
    if text in ("could not create a primitive", "could not execute a primitive"):  # oneDNN
        return True
    words = ("allocate memory", "not enough memory", "out of memory")
    return any(word in text for word in words)


def _close_stdout() -> None:
    """Stop Python from complaining at exit that nobody reads stdout any more."""
    if sys.__stdout__ is not None and sys.stdout is sys.__stdout__:
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
    """Send our log messages to stderr as single lines."""
    logger = logging.getLogger("fewview")
    logger.handlers = [_Lines()]
    logger.setLevel(logging.INFO)
