"""How a global batch is divided: over the processes, and in turn over the micro-batches of each.

A place is an example's index in the global batch. What an example is and every number drawn for
it follow from the step and its place, so it does not matter which process computes it when.
"""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fewview.training.processes import Processes
from fewview.training.stage_config import StageConfig


def shares(config: StageConfig, name: str, processes: Processes) -> list[range]:
    """The places this process computes in each micro-batch of a step.

    The processes together compute consecutive places in each micro-batch, in rank order.

    Args:
        config: The stage, with its global batch size and number of micro-batches.
        name: The stage's name, for the message.
        processes: The group.

    Raises:
        ValueError: If the batch cannot be divided evenly.
    """
    parts = processes.count * config.accumulate
    if config.batch_size % parts:
        raise ValueError(
            f"{name}: batch_size is {config.batch_size} over all processes, which cannot be "
            f"divided evenly by {processes.count} processes x {config.accumulate} micro-batches"
        )
    size = config.batch_size // parts
    starts = [
        (micro * processes.count + processes.rank) * size for micro in range(config.accumulate)
    ]
    return [range(start, start + size) for start in starts]


def group_places(places: range, processes: Processes) -> range:
    """The places that all processes compute while this one computes `places`."""
    first = places.start - processes.rank * len(places)
    return range(first, first + processes.count * len(places))


def check_statistics(module: nn.Module, name: str, processes: Processes) -> None:
    """Refuse to train batch norm in several processes.

    Raises:
        ValueError: If a network's output depends on which examples one process has.
    """
    if processes.count > 1 and any(isinstance(part, _BatchNorm) for part in module.modules()):
        raise ValueError(
            f"{name}: its network normalizes by statistics of the batch, which {processes.count} "
            f"processes would not share; train it with one"
        )
