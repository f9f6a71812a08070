"""The detector's statistics are those of counted photons."""

import math

import pytest
import torch

from fewview.xray.detector import DetectorConfig, display_style, expose, intensity


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_intensity_follows_beer_and_lambert():
    expected = torch.tensor([1.0, 0.5])
    torch.testing.assert_close(intensity(torch.tensor([0.0, math.log(2.0)])), expected)


def test_noise_of_a_line_integral_is_that_of_the_counted_photons():
    clean = torch.full((200_000,), 3.0)
    config = DetectorConfig(photons=1e5, electronic_noise=30.0)
    noisy = expose(clean, config, generator())
    counted = 1e5 * math.exp(-3.0)
    expected = math.sqrt(counted + 30.0**2) / counted  # d log(N) = dN / N
    assert noisy.std().item() == pytest.approx(expected, rel=0.02)
    assert noisy.mean().item() == pytest.approx(3.0, abs=1e-3)


def test_more_photons_make_less_noise():
    clean = torch.full((10_000,), 2.0)
    few, many = (
        expose(clean, DetectorConfig(photons=count), generator()).std() for count in (1e3, 1e5)
    )
    assert few > 5 * many


def test_gain_cancels_where_light_arrives():
    clean = torch.full((50,), 1.0)
    one, other = (expose(clean, DetectorConfig(gain=gain), generator()) for gain in (1.0, 7.0))
    torch.testing.assert_close(one, other)


def test_where_no_photon_arrives_the_logarithm_ends_at_the_floor():
    config = DetectorConfig(photons=1e4, electronic_noise=0.0, floor=0.5)
    noisy = expose(torch.full((10,), 50.0), config, generator())
    torch.testing.assert_close(noisy, torch.full((10,), math.log(1e4 / 0.5)))


def test_one_seed_gives_one_image_and_another_seed_another():
    clean = torch.rand(2, 3, 8, 8)
    config = DetectorConfig()
    first, again, other = (expose(clean, config, generator(seed)) for seed in (1, 1, 2))
    assert first.shape == clean.shape
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_display_style_has_256_levels_from_black_to_white_for_each_image():
    images = torch.rand(2, 3, 40, 40) * torch.tensor([1.0, 30.0])[:, None, None, None]
    shown = display_style(images)
    torch.testing.assert_close(shown * 255, (shown * 255).round(), atol=1e-4, rtol=0)
    assert shown.amin((-2, -1)).eq(0).all()
    assert shown.amax((-2, -1)).eq(1).all()


def test_display_style_keeps_bone_bright_and_forgets_the_scale():
    image = torch.linspace(0, 5, 1600).view(40, 40)
    shown = display_style(image)
    assert shown.flatten().diff().min() >= 0
    torch.testing.assert_close(shown, display_style(7 * image + 3))


def test_gamma_and_window_bend_the_gray_curve():
    image = torch.linspace(0, 1, 1600).view(40, 40)
    assert display_style(image, gamma=2.0).mean() < display_style(image).mean() - 0.1
    assert display_style(image, window=(0.5, 1.0)).eq(0).float().mean() > 0.49


@pytest.mark.parametrize(
    "nonsense",
    [{"photons": 0.0}, {"gain": -1.0}, {"floor": 0.0}, {"electronic_noise": -1.0},
     {"photons": float("nan")}],
)  # fmt: skip
def test_a_detector_that_cannot_exist_is_refused(nonsense):
    with pytest.raises(ValueError, match=next(iter(nonsense))):
        DetectorConfig(**nonsense)


@pytest.mark.parametrize(
    "nonsense", [{"gamma": 0.0}, {"window": (0.9, 0.1)}, {"window": (0.0, 1.5)}]
)
def test_a_display_that_cannot_exist_is_refused(nonsense):
    with pytest.raises(ValueError, match=next(iter(nonsense))):
        display_style(torch.zeros(4, 4), **nonsense)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (2, 1, 40, 41), (2, 3, 250, 173)])
@pytest.mark.parametrize("window", [(0.01, 0.99), (0.0, 1.0), (0.137, 0.61)])
def test_the_window_ends_at_quantiles_to_the_bit(dtype, shape, window):
    images = torch.randn(shape, dtype=dtype, generator=generator())
    low, high = torch.quantile(images.flatten(-2), torch.tensor(window, dtype=dtype), dim=-1)
    low, spread = low[..., None, None], (high - low).clamp(min=1e-6)[..., None, None]
    expected = (((images - low) / spread).clamp(0.0, 1.0) * 255).round() / 255
    assert torch.equal(display_style(images, window=window), expected)


def test_an_image_with_a_nan_has_no_window():
    images = torch.rand(2, 64, 64, generator=generator())
    images[0, 3, 3] = math.nan
    assert display_style(images).isnan().flatten(1).all(1).tolist() == [True, False]


def test_a_detector_of_more_than_16_million_pixels_is_shown():
    rows, cols = 4300, 4300
    row = torch.linspace(0, 1, cols)
    shown = display_style(row.expand(rows, cols), window=(0.0, 1.0))
    torch.testing.assert_close(shown[0], (row * 255).round() / 255)
    assert torch.equal(shown[-1], shown[0])
