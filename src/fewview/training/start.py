"""Starting from the weights of another model, so that what it knows need not be learned again."""

import torch

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
    known = {name: module.state_dict() for name, module in start.modules().items()}
    for name, module in networks.modules().items():
        own = module.state_dict()
        agreeing = {
            key: value
            for key, value in known.get(name, {}).items()
            if key in own and own[key].shape == value.shape
        }
        module.load_state_dict(agreeing, strict=False)
        counts[name] = (len(agreeing), len(own))
    if not any(copied for copied, _ in counts.values()):
        raise ValueError("the model to start from shares no weights with this config")
    return counts


def fingerprint(networks: AnyNetworks) -> str:
    """The first 16 digits of the digest of all weights."""
    return weights_digest(*(one for _, one in sorted(networks.modules().items())))[:16]
