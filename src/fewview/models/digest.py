"""One name for the weights of networks, wherever they lie in memory."""

import hashlib

from torch import nn


def weights_digest(*networks: nn.Module) -> str:
    """SHA-256 of the names and values of all weights, in hexadecimal digits."""
    digest = hashlib.sha256()
    for network in networks:
        for name, value in sorted(network.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
