"""Regressors: one network that turns views into a CT directly, the baselines of the latent systems.

Described by `RegressorConfig`, built by `build_regressor`, trained by `training`, stored by
`bundle` and used by `reconstruct`, as a system of `fewview.system` is.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from fewview.inputs import GridConfig, ViewRange
from fewview.models.implicit import Implicit, ImplicitConfig
from fewview.models.x2ct import X2ct, X2ctConfig
from fewview.system import SystemConfig


@dataclass(frozen=True, kw_only=True)
class RegressorConfig:
    """All that is needed to build and run a regressor, without its weights."""

    kind: Literal["regressor"]

    name: str
    """What users call it."""

    grid: GridConfig = field(default_factory=GridConfig)
    views: ViewRange = field(default_factory=ViewRange)
    network: X2ctConfig | ImplicitConfig

    consistency_steps: int = 0
    """Projection consistency steps, 0 for none."""


AnySystem = SystemConfig | RegressorConfig
"""What a model folder may describe."""


@dataclass(eq=False)
class Regressor:
    """The network of a regressor, with the interface of `system.Networks`."""

    network: X2ct | Implicit

    def modules(self) -> dict[str, nn.Module]:
        """The network by name, as it is stored."""
        return {"network": self.network}

    def to(self, device: str) -> "Regressor":
        """Move the network to a device."""
        self.network.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device


def build_regressor(config: RegressorConfig) -> Regressor:
    """A fresh network of a regressor."""
    match config.network:
        case X2ctConfig():
            return Regressor(X2ct(config.network, config.grid.size))
        case ImplicitConfig():
            return Regressor(Implicit(config.network))
