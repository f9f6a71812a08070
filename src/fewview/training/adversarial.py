"""The adversarial part of stage 1: discriminators that learn beside it, and how much they count."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewview.models.discriminator import PatchDiscriminator
from fewview.system import AnyAutoencoder
from fewview.training.compression import (
    adaptive_weight,
    fooling_loss,
    pulls,
    slabs,
    telling_loss,
)
from fewview.training.source import TrainingSource
from fewview.training.system_config import AutoencoderStage

Losses = tuple[Tensor, dict[str, float]]
"""A weighted loss, and the unweighted figures to log."""

Planes = list[tuple[int, int]]
"""For each example a random plane: axis and index."""


class Restored(NamedTuple):
    """A micro-batch as the autoencoder gives it back, beside what it was given."""

    volume: Float[Tensor, "batch 1 depth height width"]
    target: Float[Tensor, "batch 1 depth height width"]
    planes: Planes


class Adversary:
    """The discriminators of a stage, none where they have no weight."""

    def __init__(
        self, config: AutoencoderStage, autoencoder: AnyAutoencoder, source: TrainingSource
    ) -> None:
        """Fresh discriminators for what the autoencoder restores."""
        dims = {"discriminator": 3} if config.discriminator_weight > 0.0 else {}
        dims |= {"slice_discriminator": 2} if config.slice_discriminator else {}
        self.discriminators: dict[str, nn.Module] = {
            name: PatchDiscriminator(config.discriminator, 1, dims=count).to(source.device)
            for name, count in dims.items()
        }
        """By their names in the checkpoint."""
        self._config, self._source = config, source
        self._decoder = autoencoder.decoder

    def judges(self, step: int) -> bool:
        """Whether the discriminators learn and count in a step."""
        return bool(self.discriminators) and step >= self._config.discriminator_start

    def losses(self, pair: Restored, weight: Tensor | None) -> Losses:
        """The hinge losses of all networks for one backward pass.

        Args:
            pair: A micro-batch.
            weight: As `balance` found it; None for a micro-batch that is the whole batch.
        """
        with self._source.autocast():
            fooling, telling = self._fooling(pair), self._telling(pair)
        if weight is None:
            weight = self._balanced([self._pulls(pair, fooling)])
        loss = self._config.discriminator_weight * weight * fooling + telling
        figures = {"fooling": fooling, "telling": telling, "fooling_weight": weight}
        return loss, {name: value.item() for name, value in figures.items()}

    def balance(self, batch: Iterable[Restored]) -> Tensor:
        """The weight of fooling beside the L1 over all turns of this and the other processes.

        It takes a forward pass of its own before the turns: none of them knows the gradient of
        the whole batch.
        """
        found = []
        for pair in batch:
            with self._source.autocast():
                fooling = self._fooling(pair)
            found.append(self._pulls(pair, fooling))
            del pair, fooling  # or two turns would be in memory at once
        return self._balanced(found)

    def _balanced(self, found: list[Tensor]) -> Tensor:
        return adaptive_weight(self._source.processes.average(torch.stack(found).mean(dim=0)))

    def _pulls(self, pair: Restored, fooling: Tensor) -> Tensor:
        """What the mean absolute error and fooling each want of the last convolution."""
        l1 = (pair.volume - pair.target).abs().mean()
        return pulls(l1, fooling, self._decoder[-1].weight)  # type: ignore[arg-type]

    def _fooling(self, pair: Restored) -> Tensor:
        shown = self._shown(pair.volume, pair.planes)
        losses = [fooling_loss(one, shown[name]) for name, one in self.discriminators.items()]
        return torch.stack(losses).sum()

    def _telling(self, pair: Restored) -> Tensor:
        made, true = (self._shown(volume, pair.planes) for volume in (pair.volume, pair.target))
        losses = [
            telling_loss(one, made[name], true[name]) for name, one in self.discriminators.items()
        ]
        return torch.stack(losses).sum()

    def _shown(self, volume: Tensor, planes: Planes) -> dict[str, Tensor]:
        """What each discriminator is shown of a volume: all of it, and the slice at its plane."""
        return {
            "discriminator": volume,
            "slice_discriminator": slabs(volume, planes, 1)[:, :, 0],
        }
