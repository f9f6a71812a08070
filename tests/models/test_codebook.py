"""The codebook: nearest codes in bounded memory, its bounds, its losses, and dead codes revived."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fewview.models.codebook import (
    CODE_WEIGHT,
    COMMITMENT_WEIGHT,
    Codebook,
    code_counts,
    nearest,
    perplexity,
    quantization_loss,
    revival_candidates,
    usage_share,
)


class LargestTensor(TorchDispatchMode):
    """Watches how many bytes the largest tensor of any operation has."""

    num_bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run an operation and look at what it returns."""
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self.num_bytes = max(self.num_bytes, value.numel() * value.element_size())
        return result


def wide_codebook(num_codes: int = 50, num_channels: int = 4) -> Codebook:
    """A codebook whose codes lie all over their range."""
    torch.manual_seed(0)
    codebook = Codebook(num_codes, num_channels)
    torch.nn.init.uniform_(codebook.vectors, -1.0, 1.0)
    return codebook


def test_the_nearest_code_is_found_whatever_the_size_of_the_chunks(monkeypatch):
    rows, codes = torch.randn(300, 4), wide_codebook().vectors
    plain = torch.cdist(rows, codes).argmin(dim=1)
    for held in (1, 7 * 50, 2**23):
        monkeypatch.setattr("fewview.models.codebook.SEARCH_VALUES", held)
        assert torch.equal(nearest(rows, codes), plain)


def test_the_search_at_the_papers_size_holds_no_tensor_of_40_mb():
    """The whole matrix of distances would be 1.07 GB."""
    with torch.device("meta"):
        codebook, latent = Codebook(8192, 8), torch.empty(1, 8, 32, 32, 32)
        with LargestTensor() as watched:
            codebook(latent)
    assert 30e6 < watched.num_bytes < 40e6


def test_reduced_precision_does_not_reach_the_search():
    codebook, latent = wide_codebook(400), torch.rand(1, 4, 6, 6, 6)
    plain = codebook(latent).indices
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(codebook(latent).indices, plain)


def test_gradients_pass_straight_through_to_the_latent():
    latent = torch.randn(1, 4, 3, 3, 3, requires_grad=True)
    weight = torch.randn(1, 4, 3, 3, 3)
    quantized = wide_codebook()(latent)
    torch.testing.assert_close(quantized.latent, quantized.codes)
    (weight * quantized.latent).sum().backward()
    torch.testing.assert_close(latent.grad, weight)


def test_the_latent_is_pulled_four_times_as_hard_as_the_codes():
    codebook, latent = wide_codebook(1), torch.randn(1, 4, 1, 1, 1, requires_grad=True)
    quantization_loss(latent, codebook(latent)).backward()
    assert (COMMITMENT_WEIGHT, CODE_WEIGHT) == (1.0, 0.25)
    torch.testing.assert_close(codebook.vectors.grad[0], -0.25 * latent.grad.flatten())


def test_a_code_that_leaves_the_range_is_put_back_and_the_others_go_on_learning():
    codebook = wide_codebook(2, 3)
    with torch.no_grad():
        codebook.vectors.copy_(torch.tensor([[3.0, 0.0, 0.0], [-0.5, 0.0, 0.0]]))
    latent = torch.tensor([[2.0, 0.5, 0.0], [-0.4, 0.5, 0.0]]).T.reshape(1, 3, 2, 1, 1)
    quantization_loss(latent, codebook(latent)).backward()
    assert codebook.vectors.abs().max() == 1.0
    assert (codebook.vectors.grad[:, 1] < 0).all()  # both codes are pulled to 0.5


def test_codes_not_chosen_since_the_last_revival_are_replaced():
    codebook = wide_codebook(4, 2)
    before = codebook.vectors.detach().clone()
    codebook.mark(torch.tensor([True, False, True, False]))
    assert codebook.revive(torch.tensor([[5.0, 0.1], [0.2, 0.3], [0.4, 0.5]])) == 2
    torch.testing.assert_close(codebook.vectors[[0, 2]], before[[0, 2]])
    torch.testing.assert_close(codebook.vectors[[1, 3]], torch.tensor([[1.0, 0.1], [0.2, 0.3]]))
    assert not codebook.used.any()


def test_candidates_are_vectors_that_the_codebook_keeps_badly():
    codebook, latent = wide_codebook(1, 2), torch.zeros(1, 2, 10, 1, 1)
    with torch.no_grad():
        codebook.vectors.zero_()
    latent[0, :, 7:, 0, 0] = 0.9
    drawn = revival_candidates(latent, codebook(latent), 5, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn, torch.full((3, 2), 0.9))


def test_use_of_codes_is_measured_by_share_and_perplexity():
    counts = code_counts(torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]).reshape(1, 2, 2, 2), 16)
    assert usage_share(counts) == 0.25
    assert perplexity(counts) == pytest.approx(4.0)
    uneven = perplexity(torch.tensor([3, 1]))
    assert uneven == pytest.approx(math.exp(0.75 * math.log(4 / 3) + 0.25 * math.log(4)))
    assert perplexity(torch.zeros(3, dtype=torch.int64)) == 1.0
