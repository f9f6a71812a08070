"""Starting from the weights of another model, so that what it knows need not be learned again."""

import torch
from torch import Tensor

from fewview.models.digest import weights_digest
from fewview.regressor import Regressor
from fewview.system import Networks
from fewview.transfer.style import StyleNetworks

AnyNetworks = Networks | Regressor | StyleNetworks


@torch.no_grad()
def start_from(networks: AnyNetworks, start: AnyNetworks) -> dict[str, tuple[int, int]]:
    """Copy every tensor whose name and shape agree; the others keep their fresh values.

    Args:
        networks: What is going to be trained; changed in place.
        start: The networks of a trained model, of the same kind and perhaps other sizes.

    Returns:
        For each network, how many of its tensors were copied, and how many it has.

    Raises:
        ValueError: If no tensor agrees.
    """
    counts = {}
    agreeing = _agreeing(networks, start)
    for name, module in networks.modules().items():
        module.load_state_dict(agreeing[name], strict=False)
        counts[name] = (len(agreeing[name]), len(module.state_dict()))
    if not any(copied for copied, _ in counts.values()):
        raise ValueError("the model to start from shares no weights with this config")
    return counts


@torch.no_grad()
def keep_share(networks: AnyNetworks, start: AnyNetworks, share: float) -> None:
    """Move trained weights back toward those they started from; equal ones stay as they are.

    Args:
        networks: The trained networks; changed in place.
        start: What they started from.
        share: Of the start's weights in the result, wherever names and shapes agree.
    """
    agreeing = _agreeing(networks, start)
    for name, module in networks.modules().items():
        own = module.state_dict()
        for key, begun in agreeing[name].items():
            if own[key].is_floating_point():
                own[key].lerp_(begun.to(own[key]), share)


def _agreeing(networks: AnyNetworks, start: AnyNetworks) -> dict[str, dict[str, Tensor]]:
    """For each network, the start's tensors that have a name and a shape of it."""
    known = {name: module.state_dict() for name, module in start.modules().items()}
    found = {}
    for name, module in networks.modules().items():
        own = module.state_dict()
        found[name] = {
            key: value
            for key, value in known.get(name, {}).items()
            if key in own and own[key].shape == value.shape
        }
    return found


def fingerprint(networks: AnyNetworks) -> str:
    """The first 16 digits of the digest of all weights."""
    return weights_digest(*(one for _, one in sorted(networks.modules().items())))[:16]
