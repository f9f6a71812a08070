"""Hounsfield units and attenuation are one another's inverse, in the right unit."""

import pytest
import torch

from fewview.xray.attenuation import MU_WATER_70KEV, attenuation_to_hu, hu_to_attenuation


def test_air_is_transparent_and_water_is_water():
    mu = hu_to_attenuation(torch.tensor([-1000.0, 0.0]), mu_water=0.02)
    torch.testing.assert_close(mu, torch.tensor([0.0, 0.02]))


def test_padding_below_air_does_not_shine():
    assert hu_to_attenuation(torch.tensor([-3024.0])).item() == 0.0


def test_metal_is_not_clipped():
    mu = hu_to_attenuation(torch.tensor([20000.0]))
    assert mu.item() == pytest.approx(21 * MU_WATER_70KEV)


def test_attenuation_turns_back_into_hu():
    hu = torch.linspace(-1000, 3000, 50)
    torch.testing.assert_close(attenuation_to_hu(hu_to_attenuation(hu)), hu, atol=1e-2, rtol=0)


@pytest.mark.parametrize("convert", [hu_to_attenuation, attenuation_to_hu])
def test_attenuation_in_per_cm_is_refused(convert):
    with pytest.raises(ValueError, match="1/cm"):
        convert(torch.zeros(1), mu_water=0.193)
