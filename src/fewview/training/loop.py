"""The one training loop: step, average, log, validate, save. Stages hand it their loss.

The loss of step k depends on the weights and on k alone (random numbers come from generators
seeded by the step), so a run that was killed and resumed equals one that was not.
"""

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from fewview.training.checkpoint import read_checkpoint, restore, save_checkpoint
from fewview.training.config import StageConfig

log = logging.getLogger("fewview.training")

Report = Callable[[str, int, int, str], None]
"""(stage, steps done, steps in all, what to show) while training."""

StepLoss = Callable[[int], tuple[Tensor, dict[str, float]]]
"""Step number to the loss and named figures to log."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What the loop needs to know of a stage."""

    name: str
    config: StageConfig
    module: nn.Module
    step_loss: StepLoss
    validate: Callable[[], dict[str, float]]
    """Figures on the validation split; called with the averaged weights in place."""

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


def fit(stage: Stage, out: Path, *, report: Report) -> None:
    """Run a stage to its end, from its checkpoint when there is one.

    Leaves the averaged weights in the module, in evaluation mode.
    """
    config, module = stage.config, stage.module
    checkpoint = out / f"{stage.name}.safetensors"
    optimizer = torch.optim.AdamW(
        module.parameters(),
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
    )
    averages, step = Averages(module, config.ema_decay), 0
    if checkpoint.exists():
        tensors, metadata = read_checkpoint(checkpoint)
        averages.values = restore(tensors, module=module, optimizer=optimizer)
        step = int(metadata["step"])
    module.train()
    started, first = time.monotonic(), step
    while step < config.num_steps:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        loss, figures = stage.step_loss(step)
        if not torch.isfinite(loss):
            raise ValueError(
                f"{stage.name}: the loss is {loss.item()} at step {step}; lower learning_rate, or "
                f"set precision to float32"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = clip_grad_norm_(module.parameters(), config.max_grad_norm)
        optimizer.step()
        averages.update(module, step)
        step += 1
        if step % config.log_every == 0 or step == config.num_steps:
            seconds = (time.monotonic() - started) / (step - first)
            figures = {"loss": loss.item(), "grad_norm": norm.item(), "seconds": seconds, **figures}
            _write(out, stage.name, step, figures)
            report(stage.name, step, config.num_steps, f"loss {loss.item():.4f}")
        if step % config.validate_every == 0 or step == config.num_steps:
            figures = _validated(stage, averages)
            _write(out, stage.name, step, figures)
            shown = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
            report(stage.name, step, config.num_steps, shown)
        if step % config.save_every == 0 or step == config.num_steps:
            metadata = {"step": str(step), **stage.metadata()}
            save_checkpoint(
                checkpoint,
                module=module,
                averages=averages.values,
                optimizer=optimizer,
                metadata=metadata,
            )
    module.load_state_dict(averages.values)
    module.eval().requires_grad_(False)


@torch.no_grad()
def _validated(stage: Stage, averages: Averages) -> dict[str, float]:
    """Validation with the averaged weights; the module keeps its own."""
    own = {name: value.detach().clone() for name, value in stage.module.state_dict().items()}
    stage.module.load_state_dict(averages.values)
    stage.module.eval()
    figures = stage.validate()
    stage.module.load_state_dict(own)
    stage.module.train()
    return figures


def _write(out: Path, stage: str, step: int, figures: dict[str, float]) -> None:
    rounded = {name: float(f"{value:.6g}") for name, value in figures.items()}
    with (out / "metrics.jsonl").open("a", encoding="utf-8") as lines:
        lines.write(json.dumps({"stage": stage, "step": step, **rounded}) + "\n")


def psnr_db(prediction: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio of volumes in [-1, 1] (range 2), mean over the batch."""
    error = (prediction.clamp(-1, 1) - truth).square().flatten(1).mean(dim=1)
    return (10.0 * torch.log10(4.0 / error.clamp(min=1e-12))).mean().item()
