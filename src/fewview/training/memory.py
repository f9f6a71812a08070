"""Training that does not fit in memory: saying what to change, and one of the changes to make."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fewview.models.layers import ResidualBlock, SelfAttention
from fewview.models.prior import CrossAttention
from fewview.models.pseudo_layers import PlaneBlock
from fewview.models.replicate_encoder import PlainBlock
from fewview.models.x2ct import DenseBlock
from fewview.training.processes import LostProcesses, OneProcessFailed, Processes, is_loss
from fewview.training.stage_config import StageConfig

RECOMPUTED = (ResidualBlock, SelfAttention, CrossAttention, PlainBlock, PlaneBlock, DenseBlock)
"""Blocks whose inner activations can be computed again in the backward pass."""

ONEDNN_WORDS = ("could not create a primitive", "could not execute a primitive")
"""All that oneDNN (torch 2.13, CPU) says when it gets no memory; with more words it is a defect."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the CPU or on a GPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).strip()
    words = ("allocate memory", "not enough memory", "out of memory")
    said = text in ONEDNN_WORDS or any(word in text for word in words)
    return isinstance(error, RuntimeError) and said


def does_not_fit(config: StageConfig | None, name: str, processes: Processes) -> str:
    """One line for a batch, or with no stage for one case, that does not fit: what to change."""
    who = f" on process {processes.rank}" if processes.count > 1 else ""
    smaller = "a smaller system.grid or smaller networks"
    if config is None:
        return f"{name}: not enough memory{who} for one case at a time; what helps: {smaller}"
    at_once = config.batch_size // (processes.count * config.accumulate)
    changes = ["checkpointing = true"] if not config.checkpointing else []
    if at_once > 1:
        changes += ["a larger accumulate", "more processes (--devices)", "a smaller batch_size"]
    else:
        changes += [smaller]
    return (
        f"{name}: not enough memory{who} for a global batch of {config.batch_size}, "
        f"{at_once} at once in each process; what helps: {', '.join(changes)}"
    )


@contextlib.contextmanager
def explained(config: StageConfig | None, name: str, processes: Processes) -> Iterator[None]:
    """Make what can go wrong in a process's own work one line, which that process tells.

    That is lack of memory, a lost process, a bad file.

    Args:
        config: The stage whose batch is computed; None for work on one case after the other.
        name: Of the stage or the work, for the line.
        processes: The group.

    Raises:
        OneProcessFailed: If memory ran out or an example could not be read.
        LostProcesses: If another process of the group ended.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise OneProcessFailed(does_not_fit(config, name, processes)) from error
        if isinstance(error, RuntimeError) and is_loss(error):
            raise LostProcesses("another process of this run was lost") from error
        raise
    except LostProcesses:
        raise
    except (ValueError, OSError) as error:
        raise OneProcessFailed(str(error)) from error


@contextlib.contextmanager
def recomputing(module: nn.Module) -> Iterator[None]:
    """Keep only the inputs of the module's blocks for the backward pass, and compute them again.

    References:
        Chen et al. (2016), Training Deep Nets with Sublinear Memory Cost.
    """
    blocks = [part for part in module.modules() if isinstance(part, RECOMPUTED)]
    for block in blocks:
        block.forward = _recomputed(block)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def _recomputed(block: nn.Module):  # type: ignore[no-untyped-def]
    forward = block.forward

    def kept(*inputs: Tensor | None) -> Tensor:
        if not torch.is_grad_enabled():
            return forward(*inputs)
        return checkpoint(forward, *inputs, use_reentrant=False)

    return kept
