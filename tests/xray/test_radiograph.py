"""Pictures become views: bone bright, on the detector, with a geometry they admit to."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from fewview.data.volume import Volume
from fewview.xray.geometry import preset
from fewview.xray.picture import read_picture
from fewview.xray.radiograph import read_radiographs
from fewview.xray.views import drr, write_views

RAMP = np.tile(np.linspace(0, 255, 64), (48, 1)).astype(np.uint8)  # brighter to the right


@pytest.fixture
def picture(tmp_path):
    """A gray PNG, 48 rows by 64 columns."""
    path = tmp_path / "pa.png"
    Image.fromarray(RAMP).save(path)
    return path


def test_a_picture_becomes_a_display_style_view_of_an_assumed_geometry(columns, picture, caplog):
    with caplog.at_level(logging.WARNING):
        views = read_radiographs([picture, picture], [0.0, 90.0])
    assert views.images.shape == (2, 1, 256, 256)
    assert views.calibrated == (False, False)
    assert views.source == ("radiograph", "radiograph")
    assert views.geometry_source == ("assumed", "assumed")
    assert [one.primary_angle_deg for one in views.geometries] == [0.0, 90.0]
    assert views.images.min() == 0
    assert views.images.max() == 1
    assert columns(views).diff().min() >= 0
    assert len(caplog.records) == 1
    assert "'chest' geometry is assumed" in caplog.text


def test_strict_refuses_to_assume(picture):
    with pytest.raises(
        ValueError, match=r"pa.png: distances are not known; its size is not known; give"
    ):
        read_radiographs([picture], [0.0], strict=True)


@pytest.mark.parametrize(("pixels", "padded"), [(RAMP, 0), (RAMP.T, 1)])
def test_a_picture_keeps_its_shape_in_the_middle_of_the_detector(tmp_path, pixels, padded):
    path = tmp_path / "pa.png"
    Image.fromarray(pixels).save(path)
    geometry = preset("x2ct", size=128)
    views = read_radiographs([path], [0.0], geometry, strict=True)
    filled = (views.images[0, 0] > 0).nonzero()
    assert views.geometry_source == ("measured",)
    assert filled[:, padded].min() == 16  # 64 x 48 pixels become 128 x 96
    assert filled[:, padded].max() == 111
    assert views.geometries[0] == geometry


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff"])
@pytest.mark.parametrize("kind", ["8 bit", "RGB", "gray and alpha", "16 bit"])
def test_gray_is_read_from_any_common_file(columns, tmp_path, suffix, kind):
    path = tmp_path / f"pa.{suffix}"
    image = Image.fromarray(RAMP)
    if kind == "RGB":
        image = image.convert("RGB")
    elif kind != "8 bit" and suffix == "jpg":
        pytest.skip("JPEG has 8 bits and no alpha")
    elif kind == "gray and alpha":
        image = image.convert("LA")
    elif kind == "16 bit":
        image = Image.fromarray(RAMP.astype(np.uint16) * 257)
    image.save(path)
    views = read_radiographs([path], [0.0], preset("chest", size=64))
    expected = torch.from_numpy(RAMP[0] / 255.0).float()
    torch.testing.assert_close(columns(views), expected, atol=0.03, rtol=0)


def test_a_float_tiff_is_line_integrals_and_stays_untouched(tmp_path):
    hu = np.full((8, 8, 8), -1000.0, dtype=np.float32)
    hu[2:6, 2:6, 2:6] = 100.0
    made = drr(Volume(hu, np.diag([20.0, 20.0, 20.0, 1.0])), [preset("chest", size=32)])
    write_views(made, tmp_path / "views")
    found = read_radiographs([tmp_path / "views" / "view_00.tiff"], [0.0], preset("chest", size=32))
    assert found.calibrated == (True,)
    assert torch.equal(found.images, made.images)


def test_an_ap_radiograph_hung_like_a_pa_one_is_mirrored(write_dicom, picture, tmp_path):
    pa, ap = (read_radiographs([picture], [angle], preset("chest")) for angle in (0.0, 180.0))
    torch.testing.assert_close(ap.images, pa.images.flip(-1))
    path = write_dicom(tmp_path / "ap.dcm", ViewPosition="AP")
    tagged = read_radiographs([path], None, preset("chest"))
    torch.testing.assert_close(tagged.images, ap.images)
    assert tagged.geometries[0].primary_angle_deg == 180.0


def write_beside(path, **changes):
    """The file beside a picture: a view at 45 degrees on 192 x 256 mm."""
    record = {
        "beam": "cone", "primary_angle_deg": 45.0, "sdd_mm": 1000.0, "sod_mm": 700.0,
        "num_rows": 48, "num_cols": 64, "pixel_pitch_mm": [4.0, 4.0],
    } | changes  # fmt: skip
    path.with_suffix(".json").write_text(json.dumps(record))


def test_a_file_beside_the_picture_has_its_geometry(picture):
    write_beside(picture)
    views = read_radiographs([picture], strict=True)
    assert views.geometries[0].primary_angle_deg == 45.0
    assert views.geometries[0].pixel_pitch_mm == (4.0, 4.0)
    assert views.images.shape == (1, 1, 48, 64)
    assert read_radiographs([picture], [10.0]).geometries[0].primary_angle_deg == 10.0


def extents(views):
    """Height and width in mm of the views' detectors."""
    return [
        (one.num_rows * one.pixel_pitch_mm[0], one.num_cols * one.pixel_pitch_mm[1])
        for one in views.geometries
    ]


@pytest.mark.parametrize("finer_first", [False, True])
def test_a_detector_keeps_its_extent_with_other_pixels(tmp_path, finer_first):
    paths = [tmp_path / "coarse.png", tmp_path / "fine.png"]
    for path, factor in zip(paths, (1, 2), strict=True):
        Image.fromarray(RAMP.repeat(factor, 0).repeat(factor, 1)).save(path)
        write_beside(path, num_rows=48 * factor, num_cols=64 * factor,
                     pixel_pitch_mm=[4 / factor, 4 / factor])  # fmt: skip
    views = read_radiographs(paths[::-1] if finer_first else paths, strict=True)
    assert views.images.shape[2:] == ((96, 128) if finer_first else (48, 64))
    assert extents(views) == [(192.0, 256.0)] * 2
    torch.testing.assert_close(views.images[0], views.images[1], atol=0.03, rtol=0)


@pytest.mark.parametrize("plain_first", [False, True])
def test_a_picture_without_pitch_keeps_the_assumed_detector(tmp_path, picture, plain_first):
    write_beside(picture)
    plain = tmp_path / "plain.png"
    Image.fromarray(RAMP).save(plain)
    paths = [plain, picture] if plain_first else [picture, plain]
    found = extents(read_radiographs(paths, [0.0, 0.0]))
    expected = [(430.0, 430.0), (192.0, 256.0)]
    for one, other in zip(found, expected if plain_first else expected[::-1], strict=True):
        assert one == pytest.approx(other)


def test_a_picture_with_pitch_keeps_its_size_on_the_pixels_of_another(
    picture, write_dicom, tmp_path
):
    write_beside(picture)
    path = write_dicom(tmp_path / "pa.dcm", ViewPosition="PA", ImagerPixelSpacing=[6.0, 6.0])
    views = read_radiographs([picture, path.rename(tmp_path / "other.dcm")], [0.0, 0.0])
    assert views.images.shape[2:] == (48, 64)
    assert extents(views)[1] == pytest.approx((384.0, 384.0))
    rows = (views.images[1, 0].sum(1) > 0).sum()
    assert int(rows) == 36  # 288 of 384 mm


def test_a_file_beside_the_picture_may_call_its_geometry_assumed(picture, caplog):
    write_beside(picture, geometry="assumed")
    views = read_radiographs([picture])
    assert views.geometry_source == ("assumed",)
    assert views.geometries[0].sdd_mm == 1000.0
    assert "pa.json says that its geometry is assumed, it is taken as it is" in caplog.text
    with pytest.raises(ValueError, match=r"pa.png: pa.json says .* is assumed; give --geometry"):
        read_radiographs([picture], strict=True)


def test_a_view_of_a_views_folder_is_a_file_beside_its_picture(tmp_path):
    hu = np.full((8, 8, 8), -1000.0, dtype=np.float32)
    hu[2:6, 2:6, 2:6] = 100.0
    made = drr(Volume(hu, np.diag([20.0, 20.0, 20.0, 1.0])), [preset("chest", size=32)] * 2)
    write_views(replace(made, calibrated=(True, False)), tmp_path / "views")
    paths = [tmp_path / "views" / f"view_0{index}.tiff" for index in range(2)]
    record = json.loads((tmp_path / "views" / "views.json").read_text())
    for path, view in zip(paths, record["views"], strict=True):
        path.with_suffix(".json").write_text(json.dumps(view))
    found = read_radiographs(paths, strict=True)
    assert (found.calibrated, found.source) == ((True, False), ("drr", "drr"))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"calibrated": True}, "pa.json: 'calibrated' is true, but pa.png has no floating-point"),
        ({"calibrated": "no"}, "pa.json: 'calibrated' must be true or false"),
        ({"image": "lateral.png"}, "pa.json is about 'lateral.png', not about pa.png"),
        ({"geometry": "guessed"}, "'geometry' must be one of"),
        ({"source": "phone"}, "'source' must be one of"),
    ],
)
def test_marks_that_a_picture_cannot_have_are_refused(picture, changes, complaint):
    write_beside(picture, **changes)
    with pytest.raises(ValueError, match=complaint) as error:
        read_radiographs([picture])
    assert "\n" not in str(error.value)


def test_a_file_beside_the_picture_decides_where_the_header_contradicts_itself(
    write_dicom, tmp_path, caplog
):
    path = write_dicom(tmp_path / "pa.dcm", ViewPosition="PA", PositionerPrimaryAngle=90.0)
    write_beside(path)
    assert read_radiographs([path]).geometries[0].primary_angle_deg == 45.0
    assert "the given 45 degrees are taken" in caplog.text


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff"])
@pytest.mark.parametrize(
    ("orientation", "stored"),
    [(2, RAMP[:, ::-1]), (3, RAMP[::-1, ::-1]), (6, np.rot90(RAMP)), (8, np.rot90(RAMP, -1))],
)
def test_a_picture_is_turned_as_its_exif_orientation_says(tmp_path, suffix, orientation, stored):
    path = tmp_path / f"pa.{suffix}"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    np.testing.assert_allclose(read_picture(path).pixels, RAMP, atol=4)


@pytest.mark.parametrize("damaged", [b"Exif\0\0no metadata", b"Exif\0\0MM\0*\0\0"])
def test_damaged_metadata_do_not_turn_a_picture(tmp_path, damaged):
    path = tmp_path / "pa.png"
    Image.fromarray(RAMP).save(path, exif=damaged)
    np.testing.assert_array_equal(read_picture(path).pixels, RAMP)


def test_angles_that_do_not_match_the_images_are_refused(picture):
    with pytest.raises(ValueError, match="2 images but 1 angles"):
        read_radiographs([picture, picture], [0.0])
    with pytest.raises(ValueError, match=r"pa.png has no geometry: its angle is not known"):
        read_radiographs([picture])
    with pytest.raises(ValueError, match="no views"):
        read_radiographs([], [])


def refused(path, complaint):
    """The one line with which a picture is refused."""
    with pytest.raises(ValueError, match=complaint) as error:
        read_radiographs([path], [0.0], preset("chest"))
    assert "\n" not in str(error.value)
    assert path.name in str(error.value)


def test_a_color_image_is_refused(write_dicom, tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.stack((RAMP, RAMP[:, ::-1], RAMP), axis=-1)).save(path)
    refused(path, "is a color image; an X-ray has one gray channel")
    path = write_dicom(
        tmp_path / "photo.dcm", np.stack((RAMP,) * 3, axis=-1), SamplesPerPixel=3,
        PhotometricInterpretation="RGB", PlanarConfiguration=0,
    )  # fmt: skip
    refused(path, "is a color image")


def test_what_is_no_picture_is_refused(tmp_path, picture):
    refused(tmp_path / "nowhere.png", "there is no image")
    path = tmp_path / "text.png"
    path.write_text("not a picture")
    refused(path, "is no PNG, JPEG, TIFF or DICOM image")
    path.write_bytes(b"")
    refused(path, "is empty")
    path.write_bytes(picture.read_bytes()[:80])
    refused(path, "cannot read the image")
    path = tmp_path / "text.dcm"
    path.write_text("not a picture")
    refused(path, "cannot read the DICOM image")


def test_pictures_that_show_nothing_or_no_numbers_are_refused(tmp_path):
    path = tmp_path / "flat.png"
    Image.fromarray(np.full((8, 8), 7, np.uint8)).save(path)
    refused(path, "shows nothing: all its pixels are 7")
    path = tmp_path / "nan.tiff"
    Image.fromarray(np.array([[1.0, np.nan]], np.float32)).save(path)
    refused(path, "not numbers")


def test_several_images_in_one_file_are_refused(write_dicom, tmp_path):
    path = tmp_path / "stack.tiff"
    Image.fromarray(RAMP).save(path, save_all=True, append_images=[Image.fromarray(RAMP)])
    refused(path, "holds 2 images")
    path = write_dicom(tmp_path / "run.dcm", np.stack((RAMP, RAMP)).reshape(96, 64), Rows=48,
                       NumberOfFrames=2)  # fmt: skip
    refused(path, "holds 2 images")


def test_an_image_too_large_for_an_xray_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("fewview.xray.picture.MOST_PIXELS", 100)
    path = tmp_path / "huge.png"
    Image.fromarray(RAMP).save(path)
    refused(path, "is too large: 64 x 48 pixels")


def test_a_palette_of_grays_is_read(columns, tmp_path):
    path = tmp_path / "palette.png"
    palette = Image.frombytes("P", (64, 48), (255 - RAMP).tobytes())  # entry k shows 255 - k
    palette.putpalette([255 - index // 3 for index in range(768)])
    palette.save(path)
    views = read_radiographs([path], [0.0], preset("chest", size=64))
    torch.testing.assert_close(
        columns(views), torch.from_numpy(RAMP[0] / 255.0).float(), atol=0.03, rtol=0
    )
