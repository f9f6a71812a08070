"""Borders, bars and letters go; anatomy stays."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from fewview.data.phantom import phantom
from fewview.xray.cleaning import clean, exposed_field, harmonic_fill
from fewview.xray.detector import display_style
from fewview.xray.geometry import preset
from fewview.xray.radiograph import read_radiographs
from fewview.xray.views import drr


@pytest.fixture(scope="module")
def chest() -> torch.Tensor:
    """A phantom's chest radiograph, display style, 256 pixels a side."""
    views = drr(phantom(3, size=48).volume, [preset("chest", size=256)])
    return display_style(views.images[0, 0])


def lettered(image: torch.Tensor, letter: str, row: int, col: int, height: int) -> torch.Tensor:
    layer = Image.new("L", image.shape[::-1])
    font = ImageFont.load_default(size=height)
    ImageDraw.Draw(layer).text((col, row), letter, fill=255, font=font)
    return torch.maximum(image, torch.from_numpy(np.array(layer) / 255.0).float())


def test_a_picture_without_markings_stays_as_it_is(chest):
    cleaned = clean(chest)
    assert not cleaned.touched.any()
    torch.testing.assert_close(cleaned.image, display_style(chest))


@pytest.mark.parametrize("gray", [0.0, 1.0])
def test_borders_continue_the_field_and_the_window_is_that_of_the_field(chest, gray):
    covered = torch.full_like(chest, gray)
    field = (slice(40, 236), slice(28, 218))
    covered[field] = chest[field]
    cleaned = clean(covered)
    inside = torch.zeros_like(cleaned.touched)
    inside[field] = True
    assert (cleaned.touched == ~inside).float().mean() > 0.98
    assert (cleaned.image[:36] == cleaned.image[0]).all()
    assert cleaned.image[0].max() > 0.1
    torch.testing.assert_close(
        cleaned.image[60:200, 60:200],
        display_style(chest[field])[20:160, 32:172],
        atol=0.05,
        rtol=0,
    )


def test_letters_are_filled_from_around(chest):
    marked = lettered(lettered(chest, "L", 8, 220, 24), "R", 12, 16, 22)
    letters = (marked - chest).abs() > 0.3
    cleaned = clean(marked)
    assert cleaned.touched[letters].float().mean() > 0.95
    assert cleaned.touched.float().mean() < 6 * letters.float().mean()
    error = (cleaned.image - display_style(chest)).abs()
    assert error[letters].mean() < 0.1 * (marked - chest)[letters].mean()


def test_a_bar_across_the_picture_goes_with_what_lies_beyond(chest):
    barred = chest.clone()
    barred[212:228] = 1.0
    barred[228:] = 0.3
    top, bottom, left, right = exposed_field(barred.numpy().astype(np.float64))
    assert 190 <= bottom <= 212
    assert (top, left, right) == (0, 0, 256)


def test_a_saturated_abdomen_is_no_bar(chest):
    rows = torch.linspace(0.0, 1.0, 256)[:, None]
    saturated = torch.maximum(chest, ((rows - 0.6) / 0.2).clamp(0, 1).expand(256, 256))
    assert exposed_field(saturated.numpy().astype(np.float64)) == (0, 256, 0, 256)


def test_a_hole_in_a_plane_is_filled_by_the_plane():
    rows, cols = np.mgrid[:20, :30].astype(np.float64)
    plane = 2.0 * rows - cols
    holes = np.zeros(plane.shape, dtype=bool)
    holes[5:9, 10:17] = True
    spoiled = np.where(holes, 99.0, plane)
    np.testing.assert_allclose(harmonic_fill(spoiled, holes), plane, atol=1e-9)


def test_markings_are_kept_on_request(tmp_path, chest):
    path = tmp_path / "pa.png"
    marked = lettered(chest, "L", 8, 220, 24)
    Image.fromarray((255 * marked).byte().numpy()).save(path)
    geometry = preset("chest", size=256)
    kept = read_radiographs([path], [0.0], geometry, keep_markings=True).images[0, 0]
    gone = read_radiographs([path], [0.0], geometry).images[0, 0]
    assert kept[8:36, 212:244].max() == 1.0
    assert gone[8:36, 212:244].max() < 0.8
