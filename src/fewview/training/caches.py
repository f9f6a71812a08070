"""Results for all augmented copies, computed once and kept in the run's folder.

Each process computes its share. What is done is written part by part, so that a run that was
killed goes on with what is missing. A file says of which copies and by which weights it is: after
a stage was trained again, results of its old networks are not taken.
"""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import Shaped
from safetensors.torch import save_file
from torch import Tensor

from fewview.data.files import replacing_file
from fewview.training.checkpoint import read_checkpoint
from fewview.training.examples import ExampleKey
from fewview.training.memory import explained
from fewview.training.processes import Processes

NUM_PARTS = 10
"""A killed run loses at most one part of so many; each is written with all before it."""

Tell = Callable[[int, int, str], None]
"""Results done, results in all, and what to show beside."""


@torch.no_grad()
def cached(
    path: Path,
    keys: Sequence[ExampleKey],
    work: Callable[[int], Shaped[Tensor, "1 *shape"]],
    processes: Processes,
    tell: Tell,
    *,
    made_by: str,
) -> Shaped[Tensor, "copy *shape"]:
    """The results of `work` for every copy, on the CPU, as far as possible read from a file.

    Args:
        path: The file; one of other copies or by other weights is replaced.
        keys: Of the copies.
        work: The same function in every process; takes the index of a copy.
        processes: The group.
        tell: Called by the first process after each of its results, with all that are done.
        made_by: `weights_digest` of the networks in `work`.

    Raises:
        ValueError: If the file is damaged, a copy cannot be made, or memory runs out.
    """
    count = len(keys)
    named = {
        "keys": json.dumps([[key.case, key.seed] for key in keys]),
        "made_by": processes.of_first(made_by),  # machines may round differently
    }
    found = _read(path, named)
    done = 0 if found is None else len(found)
    size = processes.count * math.ceil(count / (NUM_PARTS * processes.count))
    while done < count:
        some = range(done, min(done + size, count))
        with explained(None, path.stem, processes):
            fresh = _in_shares(some, count, work, processes, tell)
        found = fresh if found is None else torch.cat([found, fresh])
        done = some.stop
        if processes.first:
            with replacing_file(path) as writing:
                save_file({"results": found}, writing, named)
    assert found is not None, "a run has copies"
    return found


def _read(path: Path, named: dict[str, str]) -> Tensor | None:
    """The results in a file so named, which may be those of the first copies only."""
    if not path.exists():
        return None
    tensors, metadata = read_checkpoint(path)
    return tensors.get("results") if metadata == named else None


def _in_shares(
    some: range,
    count: int,
    work: Callable[[int], Shaped[Tensor, "1 *shape"]],
    processes: Processes,
    tell: Tell,
) -> Shaped[Tensor, "some *shape"]:
    """The results of some of `count` copies in their order, each process computing its share."""
    # Rounded up, so that all have as many: the last ones of the others repeat the first.
    turns = math.ceil(len(some) / processes.count)
    own = []
    for turn in range(turns):
        own.append(work(some[(turn * processes.count + processes.rank) % len(some)]))
        if processes.first:
            tell(min(some.start + (turn + 1) * processes.count, some.stop), count, "")
    of_rank = processes.gathered(torch.cat(own)).unflatten(0, (processes.count, turns))
    return of_rank.transpose(0, 1).flatten(0, 1)[: len(some)].cpu().contiguous()
