"""Checkpoints that carry everything a stage needs to go on: weights, averages, optimizer, step.

A checkpoint is one safetensors file, replaced whole, so a kill at any moment leaves the last one.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fewview.data.files import replacing_file


def save_checkpoint(
    path: Path,
    *,
    module: nn.Module,
    averages: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    metadata: Mapping[str, str],
) -> None:
    """Write one checkpoint."""
    tensors = {f"module.{name}": value for name, value in module.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in averages.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    kept = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with replacing_file(path) as writing:
        save_file(kept, writing, dict(metadata))


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a checkpoint.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as stored:
            names = stored.keys()
            return {name: stored.get_tensor(name) for name in names}, stored.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path}: damaged checkpoint ({error}); delete it to start over"
        ) from error


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors below a prefix, named without it."""
    start = f"{prefix}."
    return {
        name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)
    }


def restore(
    tensors: Mapping[str, Tensor], *, module: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Put a checkpoint back into a module and its optimizer; returns the averaged weights."""
    module.load_state_dict(part(tensors, "module"))
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in part(tensors, "optimizer").items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )
    return part(tensors, "average")
