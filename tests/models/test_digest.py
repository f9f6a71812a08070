"""Weights are named by their values."""

import torch

from fewview.models.digest import weights_digest


def test_the_same_weights_have_one_digest_wherever_they_lie():
    one, other = torch.nn.Conv3d(4, 4, 3), torch.nn.Conv3d(4, 4, 3)
    other.load_state_dict(one.state_dict())
    other.to(memory_format=torch.channels_last_3d)
    assert weights_digest(one, other) == weights_digest(other, one)
    with torch.no_grad():
        other.bias[0] += 1e-3
    assert weights_digest(one) != weights_digest(other)
