"""Every legacy protocol against its definition, worked out again in plain loops."""

import math
from functools import partial
from itertools import product

import numpy as np
import pytest

from fewview.evaluation import legacy

SHAPE = (17, 9, 11)
PLANE_AXES = {"axial": 0, "coronal": 1, "sagittal": 2}


def pair() -> tuple[np.ndarray, np.ndarray]:
    """HU beyond every protocol's range, and two slices without error."""
    generator = np.random.default_rng(7)
    truth = generator.normal(-300.0, 700.0, SHAPE)
    prediction = truth + generator.normal(20.0, 150.0, SHAPE)
    prediction[:2] = truth[:2]
    return prediction.astype(np.float32), truth.astype(np.float32)


def odd_mask() -> np.ndarray:
    """No box: a corner is cut off, and the last coronal slice holds no whole window."""
    z, y, x = np.indices(SHAPE)
    return (z + y + x < 24) & (z > 1) & ~((y == 8) & (x == 5))


def plain_mean_square(x, y, mask):
    return np.mean([(a - b) ** 2 for a, b in zip(x[mask], y[mask], strict=True)])


def plain_psnr(x, y, mask, peak):
    if not mask.any():
        return None
    square = plain_mean_square(x, y, mask)
    return 100.0 if square == 0.0 else 10.0 * math.log10(peak**2 / square)


def plain_ssim(x, y, mask, data_range):
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    values = []
    for corner in product(*(range(count - 6) for count in x.shape)):
        window = tuple(slice(start, start + 7) for start in corner)
        if not mask[window].all():
            continue
        a, b = x[window].ravel(), y[window].ravel()
        (var_a, cov), (_, var_b) = np.cov(a, b)
        luminance = (2 * a.mean() * b.mean() + c1) / (a.mean() ** 2 + b.mean() ** 2 + c1)
        values.append(luminance * (2 * cov + c2) / (var_a + var_b + c2))
    return np.mean(values) if values else None


def plain_slices(name, measure, x, y, mask):
    result = {}
    for plane, axis in PLANE_AXES.items():
        slices = [
            measure(x.take(i, axis), y.take(i, axis), mask.take(i, axis))
            for i in range(x.shape[axis])
        ]
        result[f"{name}_{plane}"] = np.mean([value for value in slices if value is not None])
    return {f"{name}_slices": np.mean(list(result.values()))} | result


def plain_unit(hu, offset):
    return np.clip(hu.astype(np.float64) + offset, 0.0, 2500.0) / 2500.0


def plain_cosine(x, y):
    return np.sum(x * y) / (np.linalg.norm(x) * np.linalg.norm(y))


def plain_x2ct(prediction, truth, mask, offset):
    u, v = plain_unit(prediction, offset), plain_unit(truth, offset)
    t, g = ((2500.0 * one).astype(np.int32).astype(np.float64) for one in (u, v))
    return {
        "mae0": np.abs(u - v)[mask].mean(),
        "mse0": plain_mean_square(u, v, mask),
        "cosine": plain_cosine(u[mask], v[mask]),
        "mae": np.abs(t - g)[mask].mean(),
        "mse": plain_mean_square(t, g, mask),
        "psnr_3d": plain_psnr(t, g, mask, 4095.0),
        **plain_slices("ssim", partial(plain_ssim, data_range=1.0), u, v, mask),
        **plain_slices("psnr", partial(plain_psnr, peak=4095.0), t, g, mask),
    }


def plain_clsdm(prediction, truth, mask, offset):
    x, y = (2.0 * plain_unit(hu, offset) - 1.0 for hu in (prediction, truth))
    t, g = (((one + 1.0) * 127.5).astype(np.uint8) / 255.0 * 2500.0 for one in (x, y))
    s, h = ((one - one[mask].min()) / (one[mask].max() - one[mask].min()) for one in (t, g))
    return {
        "mae": np.abs(t - g)[mask].mean(),
        "mse": plain_mean_square(t, g, mask),
        "mae0": np.abs(s - h)[mask].mean(),
        "mse0": plain_mean_square(s, h, mask),
        "cosine": plain_cosine(t[mask], g[mask]),
        "psnr_3d": plain_psnr(t, g, mask, 4095.0),
        "ssim_3d": plain_ssim(t, g, mask, 4095.0),
        **plain_slices("ssim", partial(plain_ssim, data_range=4095.0), t, g, mask),
        **plain_slices("psnr", partial(plain_psnr, peak=4095.0), t, g, mask),
    }


def plain_perx2ct(prediction, truth, mask, offset):
    u, v = (prediction.astype(np.float64) + offset) / 2500.0, plain_unit(truth, offset)
    t, g = ((2500.0 * one).astype(np.int32).astype(np.float64) for one in (u, v))
    return {
        "ssim_3d": plain_ssim(u, v, mask, 2.0),
        **plain_slices("psnr", partial(plain_psnr, peak=4095.0), t, g, mask),
    }


def plain_liftxr(prediction, truth, mask):
    u, v = ((np.clip(hu.astype(float), -1024, 1024) + 1024) / 2048 for hu in (prediction, truth))
    return {"psnr": plain_psnr(u, v, mask, 1.0), "ssim": plain_ssim(u, v, mask, 1.0)}


def plain_sparc(prediction, truth, mask):
    p, t = (np.clip(hu.astype(np.int16), -1024, 1024).astype(float) for hu in (prediction, truth))
    square = max(plain_mean_square(p, t, mask) / 2048**2, 1e-12)
    ssim = plain_ssim((p + 1024) / 2048, (t + 1024) / 2048, mask, 1.0)
    return {"psnr": -10.0 * math.log10(square), "ssim": ssim}


def plain_unit3d(prediction, truth, mask):
    u, v = ((np.clip(hu.astype(float), -1024, 1500) + 1024) / 2524 for hu in (prediction, truth))
    return {
        "psnr": plain_psnr(u, v, mask, 1.0),
        "ssim": plain_ssim(u, v, mask, 1.0),
        "mae": np.abs((2 * u - 1) - (2 * v - 1))[mask].mean(),
    }


@pytest.mark.parametrize("mask", [None, odd_mask()], ids=["all", "odd mask"])
@pytest.mark.parametrize("offset", [1000.0, 1024.0])
@pytest.mark.parametrize("name", ["x2ct", "clsdm", "perx2ct"])
def test_a_protocol_on_stored_units_follows_its_definition(name, offset, mask):
    found = getattr(legacy, name)(*pair(), mask, offset_hu=offset)
    counted = np.ones(SHAPE, dtype=bool) if mask is None else mask
    assert found == pytest.approx(globals()[f"plain_{name}"](*pair(), counted, offset), abs=1e-6)


@pytest.mark.parametrize("mask", [None, odd_mask()], ids=["all", "odd mask"])
@pytest.mark.parametrize("name", ["liftxr", "sparc", "unit3d"])
def test_a_protocol_on_hu_follows_its_definition(name, mask):
    found = getattr(legacy, name)(*pair(), mask)
    counted = np.ones(SHAPE, dtype=bool) if mask is None else mask
    assert found == pytest.approx(globals()[f"plain_{name}"](*pair(), counted), abs=1e-6)


def test_a_box_shaped_mask_gives_what_the_box_alone_gives():
    prediction, truth = pair()
    mask = np.zeros(SHAPE, dtype=bool)
    mask[3:15, 1:, :9] = True
    box = np.s_[3:15, 1:, :9]
    for protocol in (legacy.x2ct, legacy.clsdm, legacy.perx2ct, legacy.liftxr):
        assert protocol(prediction, truth, mask) == protocol(prediction[box], truth[box])


def test_equal_slices_count_as_100_db_and_so_raise_the_mean():
    prediction, truth = pair()
    assert legacy.x2ct(truth, truth)["psnr_3d"] == 100.0
    assert legacy.x2ct(truth, truth)["psnr_coronal"] == 100.0
    result = legacy.x2ct(prediction, truth)
    assert result["psnr_axial"] > legacy.x2ct(prediction[2:], truth[2:])["psnr_axial"] + 5.0


def test_whole_hu_are_stored_without_a_rounding_error():
    hu = np.arange(-1000.0, 1500.0, dtype=np.float32).reshape(10, 10, 25)
    stored = np.trunc(legacy.stored_units(hu))
    np.testing.assert_array_equal(stored, np.arange(2500.0).reshape(10, 10, 25))


def test_only_clsdm_takes_a_range_from_the_data():
    prediction, truth = (np.clip(hu, -900.0, 400.0) for hu in pair())
    half = prediction * 0.5 - 400.0, truth * 0.5 - 400.0
    found, again = legacy.clsdm(prediction, truth), legacy.clsdm(*half)
    assert again["mae0"] == pytest.approx(found["mae0"], rel=0.05)
    assert again["mae"] == pytest.approx(0.5 * found["mae"], rel=0.05)
    assert math.isnan(legacy.clsdm(np.full_like(truth, 40.0), truth)["mae0"])


def test_an_empty_mask_is_refused():
    with pytest.raises(ValueError, match="do not overlap"):
        legacy.x2ct(*pair(), np.zeros(SHAPE, dtype=bool))
