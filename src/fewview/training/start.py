"""Starting from the weights of another model, so that what it knows need not be learned again."""

import hashlib

import torch

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
    """First 16 hexadecimal digits of the SHA-256 of all weights."""
    digest = hashlib.sha256()
    for name, module in sorted(networks.modules().items()):
        for key, value in sorted(module.state_dict().items()):
            digest.update(f"{name}.{key}".encode())
            digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
