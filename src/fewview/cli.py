"""The commands: thin shells over the Python API.

Nothing heavy is imported before a command runs, so that `--help` answers at once. Usage is
checked before work starts; what goes wrong later becomes one line in `terminal`.
"""

import os
import sys
import warnings
from typing import Annotated

import typer

from fewview import __version__, terminal
from fewview.commands.making import demo, phantom, prepare, project
from fewview.commands.modeling import models, reconstruct, train
from fewview.commands.scoring import evaluate, experiment

app = typer.Typer(
    cls=terminal.CommandGroup,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """The `fewview` command."""
    # Threads that wait by spinning slow every neighbor on a busy machine, and themselves; read when
    # torch is first imported. On an idle machine it costs nothing measurable.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not sys.warnoptions:  # warnings of libraries are for developers: python -W shows them
        warnings.simplefilter("ignore")
    app(prog_name="fewview")


def _show_version(wanted: bool) -> bool:
    """Print the version and stop."""
    if wanted:
        typer.echo(f"fewview {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show the traceback of a failure.")
    ] = False,
) -> None:
    """CT volumes from one to sixteen X-ray views. Research software, not a medical device."""


for _command in (demo, phantom, prepare, project, train, reconstruct, evaluate, experiment, models):
    app.command()(_command)
