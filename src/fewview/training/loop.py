"""The one training loop: step, average, log, validate, save. Stages hand it their loss.

The loss of step k depends on the weights, on k and on the places of the batch alone (random numbers
come from generators seeded by step and place), so a run that was killed and resumed equals one that
was not, and several processes do what one does. So do several micro-batches where the loss is a
mean over examples. Where examples are compared with each other (the contrast of stage 2), each is
compared with those of its micro-batch; docs/training.md says what that changes.
"""

import contextlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from fewview.training.batches import check_statistics, shares
from fewview.training.checkpoint import read_checkpoint, restore, save_checkpoint
from fewview.training.memory import explained, recomputing
from fewview.training.optimizer import new_optimizer
from fewview.training.processes import Processes
from fewview.training.stage_config import StageConfig

Report = Callable[[str, int, int, str], None]
"""(stage, steps done, steps in all, what to show) while training."""

StepLoss = Callable[[int, range], tuple[Tensor, dict[str, float]]]
"""Step number and places of its batch to their mean loss and named figures to log."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What the loop needs to know of a stage."""

    name: str
    config: StageConfig
    module: nn.Module
    step_loss: StepLoss
    validate: Callable[[], dict[str, list[float]]]
    """Figures of each case of this process's share of the validation split; called with the
    averaged weights in place."""

    metadata: Callable[[], dict[str, str]] = dict
    """Further text to keep in the checkpoint."""


def learning_rate(config: StageConfig, step: int) -> float:
    """Linear warm-up, a plateau, one over the square root of the step, and the cooldown if any.

    Without a cooldown the rate needs no end point, so a run can be prolonged by raising num_steps;
    with one it can until the cooldown begins.

    References:
        Karras et al. (2024), EDM2, equation 67; Hägele et al. (2024), section 3, for the cooldown.
    """
    rising = min(1.0, (step + 1) / max(1, config.warmup_steps))
    falling = 1.0 / math.sqrt(max(1.0, step / max(1, config.steady_steps)))
    left = min(1.0, (config.num_steps - step) / max(1, config.cooldown_steps))
    return config.learning_rate * rising * falling * left


class Averages:
    """Exponential moving average of a module's weights, warmed up."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        """Start at the module's weights."""
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move toward the module's weights after step number `step`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        learned = {name for name, _ in module.named_parameters()}
        for name, value in module.state_dict().items():
            if name in learned:
                self.values[name].lerp_(value.detach(), 1 - decay)
            else:  # a buffer is a state, of which only the last counts
                self.values[name].copy_(value)


def fit(stage: Stage, out: Path, processes: Processes, *, report: Report) -> None:
    """Run a stage to its end, from its checkpoint when there is one.

    Leaves the averaged weights in the module, in evaluation mode. All processes read the
    checkpoint; the first one alone writes and reports.

    Raises:
        ValueError: If the batch cannot be divided or does not fit, the checkpoint is not of this
            stage, or the loss is not finite.
    """
    config, module = stage.config, stage.module
    places = shares(config, stage.name, processes)
    check_statistics(module, stage.name, processes)
    checkpoint = out / f"{stage.name}.safetensors"
    optimizer = new_optimizer(module, config)
    averages, step = Averages(module, config.ema_decay), 0
    if checkpoint.exists():
        tensors, metadata = read_checkpoint(checkpoint)
        if not {f"module.{name}" for name in module.state_dict()} <= tensors.keys():
            raise ValueError(
                f"{checkpoint}: has not all that this version of fewview trains in this stage; "
                "delete it to train the stage again"
            )
        averages.values = restore(tensors, module=module, optimizer=optimizer)
        step = int(metadata["step"])
    tell = partial(_tell, stage, out, report) if processes.first else _nothing
    module.train()
    started, first = time.monotonic(), step
    while step < config.num_steps:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        with explained(config, stage.name, processes):
            figures = processes.mean(gradients(stage, step, places))
            processes.average_gradients(module)
        if not math.isfinite(figures["loss"]):
            raise ValueError(
                f"{stage.name}: the loss is {figures['loss']} at step {step}; lower learning_rate, "
                f"or set precision to float32"
            )
        with explained(config, stage.name, processes):
            norm = clip_grad_norm_(module.parameters(), config.max_grad_norm)
            optimizer.step()
            averages.update(module, step)
        step += 1
        if step % config.log_every == 0 or step == config.num_steps:
            seconds = (time.monotonic() - started) / (step - first)
            loss = figures.pop("loss")
            timed = {"loss": loss, "grad_norm": norm.item(), "seconds": seconds, **figures}
            tell(step, timed, f"loss {loss:.4f}")
        if step % config.validate_every == 0 or step == config.num_steps:
            with explained(None, stage.name, processes):
                figures = _validated(stage, averages, processes)
            tell(step, figures, ", ".join(f"{name} {figures[name]:.3f}" for name in figures))
        if processes.first and (step % config.save_every == 0 or step == config.num_steps):
            save_checkpoint(
                checkpoint,
                module=module,
                averages=averages.values,
                optimizer=optimizer,
                metadata={"step": str(step), **stage.metadata()},
            )
    module.load_state_dict(averages.values)
    module.eval().requires_grad_(False)


def gradients(stage: Stage, step: int, places: Sequence[range]) -> dict[str, float]:
    """Leave the gradients of the mean loss over some places of a step in the module.

    Args:
        stage: The stage; gradients its module had are dropped.
        step: Number of the step.
        places: The places of each micro-batch, as many in each.

    Returns:
        The loss and the stage's figures, means over the micro-batches that have them.
    """
    stage.module.zero_grad(set_to_none=True)
    found: dict[str, list[float]] = {}
    with recomputing(stage.module) if stage.config.checkpointing else contextlib.nullcontext():
        for some in places:
            loss, figures = stage.step_loss(step, some)
            (loss / len(places)).backward()
            for name, value in {"loss": loss.item(), **figures}.items():
                found.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}


@torch.no_grad()
def _validated(stage: Stage, averages: Averages, processes: Processes) -> dict[str, float]:
    """Means over the validation split with the averaged weights; the module keeps its own."""
    own = {name: value.detach().clone() for name, value in stage.module.state_dict().items()}
    stage.module.load_state_dict(averages.values)
    stage.module.eval()
    figures = stage.validate()
    stage.module.load_state_dict(own)
    stage.module.train()
    means = {}
    for name, values in figures.items():
        total, count = processes.sum(float(sum(values)), float(len(values)))
        if count:
            means[name] = total / count
    return means


def _tell(
    stage: Stage, out: Path, report: Report, step: int, figures: dict[str, float], shown: str
) -> None:
    """Write figures to metrics.jsonl and report them."""
    rounded = {name: float(f"{value:.6g}") for name, value in figures.items()}
    with (out / "metrics.jsonl").open("a", encoding="utf-8") as lines:
        lines.write(json.dumps({"stage": stage.name, "step": step, **rounded}) + "\n")
    report(stage.name, step, stage.config.num_steps, shown)


def _nothing(step: int, figures: dict[str, float], shown: str) -> None:
    """Tell nobody: another process of the group does."""


def psnr_db(prediction: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio of volumes in [-1, 1] (range 2), mean over the batch."""
    error = (prediction.clamp(-1, 1) - truth).square().flatten(1).mean(dim=1)
    return (10.0 * torch.log10(4.0 / error.clamp(min=1e-12))).mean().item()
