"""Hounsfield units to linear attenuation and back.

CT files store Hounsfield units (HU). X-rays obey line integrals of the linear
attenuation coefficient mu, in 1/mm. This module is the only place where one becomes
the other: `data/` speaks HU, `projector.py` speaks mu.
"""

from jaxtyping import Float
from torch import Tensor

MU_WATER_70KEV = 0.0194  # 1/mm; NIST SRD 126 Table 4, log-log between 60 and 80 keV:
# 0.2059 and 0.1837 cm2/g at 60 and 80 keV give 0.1937 cm2/g at 70 keV, at 1 g/cm3.


def hu_to_attenuation(
    hu: Float[Tensor, "*shape"], *, mu_water: float = MU_WATER_70KEV
) -> Float[Tensor, "*shape"]:
    """Linear attenuation of a CT volume.

    Inverts the definition HU = 1000 (mu - mu_water) / mu_water. Exact for water and
    air; bone is treated as dense water, so its contrast does not change with energy.
    There is no upper bound: metal stays metal.

    Args:
        hu: CT values in HU.
        mu_water: Attenuation of water at the beam energy, in 1/mm.

    Returns:
        Attenuation in 1/mm; 0 at and below -1000 HU.

    Raises:
        ValueError: If `mu_water` cannot be in 1/mm at a diagnostic energy.

    References:
        HU: DICOM PS3.3 C.11.1.1.2. Water: NIST SRD 126, Table 4.
    """
    _check_mu_water(mu_water)
    return (mu_water * (1.0 + hu / 1000.0)).clamp(min=0.0)


def attenuation_to_hu(
    mu: Float[Tensor, "*shape"], *, mu_water: float = MU_WATER_70KEV
) -> Float[Tensor, "*shape"]:
    """CT values of an attenuation volume, by the definition of the Hounsfield unit.

    Args:
        mu: Attenuation in 1/mm.
        mu_water: Attenuation of water at the beam energy, in 1/mm.

    Returns:
        CT values in HU; -1000 where `mu` is 0.

    Raises:
        ValueError: If `mu_water` cannot be in 1/mm at a diagnostic energy.

    References:
        HU: DICOM PS3.3 C.11.1.1.2.
    """
    _check_mu_water(mu_water)
    return 1000.0 * (mu / mu_water - 1.0)


def _check_mu_water(mu_water: float) -> None:
    if not 0.01 < mu_water < 0.05:
        raise ValueError(f"mu_water must be 0.01 to 0.05 1/mm, got {mu_water}; is it in 1/cm?")
