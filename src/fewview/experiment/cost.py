"""What a prediction costs: arithmetic and memory, counted, never guessed.

Convolutions, matrix products and attention are counted by torch's own formulas; projector
and lifting work by the interpolations they do. Filters and element-wise steps are not
counted: a method without any counted operation has no figure.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

BILINEAR_FLOP, TRILINEAR_FLOP = 8, 16
"""A multiplication and an addition for each of the four or eight corners."""

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


def count_flop(run: Callable[[], object]) -> float | None:
    """Floating-point operations of a call, or None if it does nothing that is counted.

    A multiplication and an addition are two. Networks: convolutions, matrix products and
    attention. Projection and lifting: 8 per bilinear sample, 1 per value spread back.
    """
    aten = torch.ops.aten
    formulas = {
        aten.grid_sampler_2d: _bilinear,
        aten._grid_sampler_2d_cpu_fallback: _bilinear,
        aten.grid_sampler_3d: _trilinear,
        aten.scatter_add: _spread,
        aten.scatter_add_: _spread,
        aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    }
    counter = FlopCounterMode(display=False, custom_mapping=formulas)
    with counter:
        run()
    total = counter.get_total_flops()
    return float(total) if total else None


def _bilinear(*shapes: Any, out_shape: Any = None, **_: Any) -> int:
    return BILINEAR_FLOP * _count(out_shape)


def _trilinear(*shapes: Any, out_shape: Any = None, **_: Any) -> int:
    return TRILINEAR_FLOP * _count(out_shape)


def _spread(target: Any, dim: Any, index: Any, *rest: Any, **_: Any) -> int:
    return _count(index)


def _attention(query: Any, key: Any, value: Any, *rest: Any, **_: Any) -> int:
    flop: int = sdpa_flop_count(query, key, value)
    return flop


def _count(shape: Any) -> int:
    """Values in a tensor of this shape."""
    return int(torch.Size(shape).numel())


def reset_peak_memory(device: str) -> bool:
    """Start measuring the peak anew; False where this system cannot."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
    try:
        _RESET.write_text("5")  # proc(5): resets the peak resident set size
    except OSError:
        return False
    return True


def peak_memory_mb() -> float | None:
    """Peak resident memory of this process since the reset, in MB (1e6 bytes).

    Holds the libraries and what is cached too; None where it cannot be read.
    """
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    found = [line.split() for line in lines if line.startswith("VmHWM:")]
    return int(found[0][1]) * 1024 / 1e6 if found else None


def peak_device_mb(device: str) -> float | None:
    """Peak memory of tensors on a GPU since the reset, in MB; None without one."""
    if not device.startswith("cuda"):
        return None
    return torch.cuda.max_memory_allocated(device) / 1e6
