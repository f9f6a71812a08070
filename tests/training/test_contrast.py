"""The contrastive losses, against their equations written out, and the memory of negatives."""

import math

import pytest
import torch
import torch.nn.functional as F

from fewview.training.contrast import (
    Memory,
    case_contrast,
    flat_unit,
    local_contrast,
    match_loss,
)

WARM = torch.tensor(math.log(0.1))


def drawn(count: int, *, seed: int = 0, side: int = 4) -> torch.Tensor:
    return torch.randn(count, 8, side, side, side, generator=torch.Generator().manual_seed(seed))


def cosine(first: torch.Tensor, second: torch.Tensor) -> float:
    return F.cosine_similarity(first, second, dim=0).mean().item()


def info_nce(positive: float, negatives: list[float], scale: float = 0.1) -> float:
    logits = [value / scale for value in [positive, *negatives]]
    return math.log(sum(map(math.exp, logits))) - logits[0]


def test_contrast_is_low_for_matched_and_high_for_swapped_pairs():
    latent = drawn(4)
    assert case_contrast(latent, latent, WARM) < 0.01
    assert case_contrast(latent.flip(0), latent, WARM) > 5.0


def test_contrast_does_not_grow_with_the_grid():
    two = drawn(2, side=1)
    small, large = two.expand(-1, -1, 2, 2, 2), two.expand(-1, -1, 8, 8, 8)
    zero = torch.tensor(0.0)
    loss = case_contrast(small, small, zero)
    assert 0.1 < loss < math.log(2)
    torch.testing.assert_close(loss, case_contrast(large, large, zero))


def test_negatives_face_the_views_and_the_past_faces_the_cts():
    views, cts, others, past = drawn(2), drawn(2, seed=1), drawn(1, seed=2), drawn(1, seed=3)
    loss = case_contrast(views, cts, WARM, negatives=others, past=flat_unit(past))
    forth = [
        info_nce(
            cosine(views[i], cts[i]), [cosine(views[i], cts[1 - i]), cosine(views[i], others[0])]
        )
        for i in range(2)
    ]
    back = [
        info_nce(cosine(views[i], cts[i]), [cosine(views[1 - i], cts[i]), cosine(past[0], cts[i])])
        for i in range(2)
    ]
    assert loss.item() == pytest.approx(sum(forth + back) / 4, rel=1e-4)


def test_past_views_of_the_same_case_are_no_negatives():
    views, cts = drawn(2), drawn(2, seed=1)
    is_own = torch.tensor([[True, True], [True, True]])
    masked = case_contrast(views, cts, WARM, past=flat_unit(drawn(2, seed=3)), is_own=is_own)
    assert masked == case_contrast(views, cts, WARM)


def test_matched_latents_of_any_length_have_no_distance():
    latent = drawn(2)
    assert match_loss(3.0 * latent, latent) < 1e-10


@pytest.mark.parametrize(
    ("against", "others"), [("positions", "q"), ("cases", "k"), ("both", "qk")]
)
def test_a_position_is_told_apart_from_what_the_config_names(against, others):
    views, cts = drawn(3), drawn(3, seed=1)
    places = torch.tensor([5, 0, 40, 63])
    one, two = (value.flatten(2)[:, :, places] for value in (views, cts))
    expected = []
    for first, second in ((one, two), (two, one)):
        for case in range(3):
            for place in range(4):
                anchor = first[case, :, place]
                keys = [second[case, :, q] for q in range(4) if q != place and "q" in others]
                keys += [second[k, :, place] for k in range(3) if k != case and "k" in others]
                own = cosine(anchor, second[case, :, place])
                expected.append(info_nce(own, [cosine(anchor, key) for key in keys]))
    loss = local_contrast(views, cts, WARM, places, against=against)
    assert loss.item() == pytest.approx(sum(expected) / len(expected), rel=1e-4)


def test_local_contrast_sees_a_shift_that_the_case_contrast_forgives():
    latent = drawn(2)
    views = torch.stack([latent[0].roll(1, dims=1), latent[1].roll(1, dims=1)])
    views = views + 2.0 * latent
    places = torch.arange(64)
    assert case_contrast(views, latent, WARM) < 0.02
    assert local_contrast(views, latent, WARM, places) > 0.1
    assert local_contrast(latent, latent, WARM, places) < local_contrast(
        views, latent, WARM, places
    )


def test_a_memory_forgets_the_oldest_and_knows_whose_views_it_holds():
    memory = Memory(3, 8)
    assert memory.is_own(torch.tensor([0])).all(), "an empty place is no negative"
    batches = [drawn(2, seed=seed, side=1) for seed in range(2)]
    memory.push(batches[0], torch.tensor([10, 11]))
    memory.push(batches[1], torch.tensor([12, 13]))
    assert memory.case.tolist() == [13, 11, 12]
    torch.testing.assert_close(memory.aligned[[2, 0]], flat_unit(batches[1]))
    assert memory.is_own(torch.tensor([11, 7])).tolist() == [[False, True, False], [False] * 3]


def test_a_batch_larger_than_the_memory_leaves_its_last():
    memory = Memory(2, 8)
    memory.push(drawn(5, side=1), torch.arange(5))
    assert sorted(memory.case.tolist()) == [3, 4]


def test_the_temperature_learns_and_stays_above_a_hundredth():
    log_temperature = torch.tensor(-2.3, requires_grad=True)
    case_contrast(drawn(2), drawn(2, seed=1), log_temperature).backward()
    assert log_temperature.grad is not None
    assert log_temperature.grad != 0
    coldest, colder = (
        case_contrast(drawn(2), drawn(2, seed=1), torch.tensor(value)) for value in (-4.6, -50.0)
    )
    assert torch.isfinite(colder)
    assert colder == coldest
