"""`fewview train --devices N`: the same command line as several processes on this machine.

The agent behind torchrun starts and watches them; to go on after the loss of a process, or on
several machines, call torchrun itself (docs/training.md).
"""

import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import TypeGuard


def needs_launch(devices: int | None) -> TypeGuard[int]:
    """Whether processes must be started: several are wanted, and torchrun started none.

    Raises:
        ValueError: If torchrun started another number of them on this machine.
    """
    here = os.environ.get("LOCAL_WORLD_SIZE") if "TORCHELASTIC_RUN_ID" in os.environ else None
    if here is not None and devices is not None and devices != int(here):
        raise ValueError(f"--devices {devices}, but torchrun started {here} processes here")
    return here is None and devices is not None and devices > 1


def launch(devices: int, words: Sequence[str]) -> int:
    """Run a `fewview` command line as several processes; each finds the others by its environment.

    Args:
        devices: How many processes.
        words: The command line after `fewview`.

    Returns:
        0 if all were done, 1 if one failed (it has told why).

    Raises:
        ValueError: If a process was killed.
        SystemExit: If this one was told to stop.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # it reports in pages
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=devices,
        run_id="fewview",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "fewview", *words)
    except ChildFailedError as error:
        killed = [rank for rank, one in error.failures.items() if one.exitcode == -signal.SIGKILL]
        if killed:
            raise ValueError(
                f"process {killed[0]} was killed, perhaps for lack of memory; --resume goes on "
                "from the last checkpoint"
            ) from error
        return 1
    except SignalException as stopped:
        raise SystemExit(128 + stopped.sigval) from None  # the first process has told
    return 0
