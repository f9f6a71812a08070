"""What the weights are moved by: AdamW, or Muon for the matrices and AdamW for the rest."""

from typing import Any

import torch
from torch import Tensor, nn

from fewview.training.stage_config import StageConfig

LAYERS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)


class Muon(torch.optim.Optimizer):
    """Muon for the weights of convolutions and linear layers, AdamW for all other parameters.

    Muon replaces the averaged gradient of a matrix by the nearest orthogonal one, so that a step
    moves all directions alike: it learns from few steps. A convolution's weights count as the
    matrix from all it sees to its output channels. The steps are scaled to the size of AdamW's, so
    that one rate serves both. Layers with one output are left to AdamW.

    References:
        Jordan et al. (2024), Muon, kellerjordan.github.io/posts/muon; Liu et al. (2025), Muon is
        scalable for LLM training, arXiv 2502.16982, section 2.2, for the scale.
    """

    def __init__(self, module: nn.Module, config: StageConfig) -> None:
        """Build for all parameters of a module; their memory must stay where it is."""
        weights = [part.weight for part in module.modules() if isinstance(part, LAYERS)]
        self.matrices = [
            (weight, nn.Parameter(_matrix(weight.data, weight)))
            for weight in weights
            if len(weight) > 1
        ]
        moved = {id(weight) for weight, _ in self.matrices}
        rest = [value for value in module.parameters() if id(value) not in moved]
        self.parts: list[torch.optim.Optimizer] = []
        if rest:
            self.parts.append(adamw(rest, config))
        if self.matrices:
            muon = torch.optim.Muon(
                [matrix for _, matrix in self.matrices],
                lr=config.learning_rate,
                weight_decay=config.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
            self.parts.append(muon)
        super().__init__(self._groups(), {})
        self.param_groups = self._groups()

    def _groups(self) -> list[dict[str, Any]]:
        """The parts' own: a rate that is set here is set there."""
        return [group for part in self.parts for group in part.param_groups]

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move all parameters that have a gradient."""
        for weight, matrix in self.matrices:
            matrix.grad = None if weight.grad is None else _matrix(weight.grad, weight)
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """The states of both, numbered through."""
        state: dict[int, Any] = {}
        groups: list[dict[str, Any]] = []
        for part in self.parts:
            own = part.state_dict()
            offset = sum(len(group["params"]) for group in groups)
            state |= {offset + number: values for number, values in own["state"].items()}
            groups += own["param_groups"]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        first = 0
        for part, group in zip(self.parts, state_dict["param_groups"], strict=True):
            numbers = range(first, first + len(group["params"]))
            state = {
                number - first: values
                for number, values in state_dict["state"].items()
                if number in numbers
            }
            part.load_state_dict({"state": state, "param_groups": [group]})
            first = numbers.stop
        self.param_groups = self._groups()


def _matrix(values: Tensor, like: Tensor) -> Tensor:
    """A weight or its gradient as a matrix, in the order in which the weight lies in memory.

    So the matrix of a weight is the weight itself, not a copy. With channels innermost the columns
    come in another order, which is the same to Muon.
    """
    if not like.is_contiguous():
        values = values.permute(0, *range(2, values.ndim), 1)
    return values.flatten(1)


def adamw(parameters: Any, config: StageConfig) -> torch.optim.AdamW:
    """AdamW as a stage's config says."""
    return torch.optim.AdamW(
        parameters,
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
    )


def new_optimizer(module: nn.Module, config: StageConfig) -> torch.optim.Optimizer:
    """The optimizer of a stage, for all parameters of its networks."""
    if config.optimizer == "muon":
        return Muon(module, config)
    return adamw(module.parameters(), config)
