"""The held-out style stays what it is, and stays out of training."""

import pytest
import torch

from fewview.xray.style import (
    COLLIMATION,
    GAMMA,
    WINDOW_CUT,
    DisplayStyle,
    apply_style,
    draw_style,
)

PLAIN = DisplayStyle(
    gamma=1.0, window=(0.0, 1.0), collimation=(0.0,) * 4, border=0.0, noise=0.0, letters=()
)
RAMP = torch.linspace(0.0, 8.0, 64).expand(48, 64)


def drawn(seed):
    return draw_style(torch.Generator().manual_seed(seed))


def shown(**changes):
    style = DisplayStyle(**{**vars(PLAIN), **changes})
    return apply_style(RAMP, style, torch.Generator().manual_seed(0))


def test_the_ranges_are_the_fixed_ones():
    assert GAMMA == (0.4, 2.5)
    assert (WINDOW_CUT, COLLIMATION) == (0.30, 0.20)
    styles = [drawn(seed) for seed in range(200)]
    assert all(GAMMA[0] <= one.gamma <= GAMMA[1] for one in styles)
    assert min(one.gamma for one in styles) < 0.45
    assert max(one.gamma for one in styles) > 2.2
    assert all(0.7 <= one.window[1] - one.window[0] <= 1.0 for one in styles)
    assert 0.19 < max(max(one.collimation) for one in styles) <= 0.2
    assert {len(one.letters) for one in styles} == {1, 2}


def test_a_seed_gives_one_style_and_one_picture():
    assert drawn(5) == drawn(5) != drawn(6)
    first, second = (
        apply_style(RAMP, drawn(5), torch.Generator().manual_seed(1)) for _ in range(2)
    )
    assert torch.equal(first, second)


def test_each_part_of_a_style_does_what_it_says():
    torch.testing.assert_close(shown(), RAMP / 8.0, atol=0.003, rtol=0)
    torch.testing.assert_close(shown(gamma=2.0), (RAMP / 8.0) ** 2, atol=0.003, rtol=0)
    assert (shown(window=(0.25, 1.0))[:, :16] == 0.0).all()
    covered = shown(collimation=(0.0, 0.25, 0.0, 0.0), border=1.0)
    assert (covered[36:] == 1.0).all()
    torch.testing.assert_close(covered[:36], shown()[:36])
    assert shown(noise=0.04)[:, 32].std().item() == pytest.approx(0.04, rel=0.4)
    assert (shown(letters=(("L", 0.3, 0.1, 0.1),)) - shown()).max() > 0.7
