"""Views go to files and come back; what does not fit together is refused in one line."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from fewview.data.volume import Volume
from fewview.xray.attenuation import MU_WATER_70KEV
from fewview.xray.geometry import preset
from fewview.xray.views import Views, drr, preview, read_geometry, read_views, write_views


@pytest.fixture
def volume():
    """A box of water in air, far from the origin."""
    hu = np.full((12, 14, 16), -1000.0, dtype=np.float32)
    hu[3:9, 4:10, 5:11] = 0.0
    matrix = np.diag([10.0, 10.0, 10.0, 1.0])
    matrix[:3, 3] = (30.0, -250.0, 700.0)
    return Volume(hu, matrix)


@pytest.fixture
def views(volume):
    """A cone and a parallel view with everything that may differ from the defaults."""
    cone = replace(
        preset("chest", angle_deg=20.0, size=24),
        secondary_angle_deg=-5.0, roll_deg=3.0, detector_offset_mm=(4.0, -6.5),
        num_rows=20, pixel_pitch_mm=(18.0, 17.5),
    )  # fmt: skip
    parallel = replace(preset("parallel", angle_deg=90.0, size=24), num_rows=20)
    found = drr(volume, [cone, parallel])
    return replace(
        found, calibrated=(True, False), source=("drr", "radiograph"),
        geometry_source=("measured", "assumed"),
    )  # fmt: skip


@pytest.fixture
def folder(views, tmp_path):
    write_views(views, tmp_path / "views")
    return tmp_path / "views"


def edit(folder, change):
    """Change the record of a views folder by hand."""
    path = folder / "views.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def test_a_drr_is_centered_on_the_volume(volume):
    found = drr(volume, [preset("chest", size=25), preset("chest", angle_deg=90.0, size=25)])
    assert found.isocenter_mm == pytest.approx(tuple(volume.center_mm))
    middle = found.images[:, 0, 12, 12]
    torch.testing.assert_close(middle, torch.full((2,), 60 * MU_WATER_70KEV), rtol=1e-3, atol=0)
    assert found.images[0, 0, 0, 0] == 0.0


def test_an_isocenter_moves_the_picture(volume):
    center = volume.center_mm
    found = drr(volume, [preset("chest", size=25)], isocenter_mm=center - [0.0, 0.0, 100.0])
    assert found.images[0, 0].sum(1).argmax() < 9  # the box is now above the isocenter


def test_metal_is_not_clipped_and_padding_does_not_shine(volume):
    hu = volume.hu.copy()
    hu[hu == 0.0] = 20_000.0
    hu[hu == -1000.0] = -3024.0
    metal = drr(Volume(hu, volume.voxel_to_patient), [preset("chest", size=25)])
    plain = drr(volume, [preset("chest", size=25)])
    torch.testing.assert_close(metal.images, 21 * plain.images)


def test_a_volume_that_cannot_be_written_to_is_projected_without_a_warning(volume):
    volume.hu.setflags(write=False)
    assert drr(volume, [preset("chest", size=8)]).images.max() > 0


def test_views_come_back_as_they_were_written(views, folder):
    found = read_views(folder)
    assert torch.equal(found.images, views.images)
    assert found.geometries == views.geometries
    assert found.isocenter_mm == views.isocenter_mm
    assert found.calibrated == views.calibrated
    assert found.source == views.source
    assert found.geometry_source == views.geometry_source
    torch.testing.assert_close(found.cameras.origin, views.cameras.origin)


def test_the_folder_has_the_documented_form(folder):
    record = json.loads((folder / "views.json").read_text())
    assert sorted(path.name for path in folder.iterdir()) == [
        "view_00.tiff", "view_01.tiff", "views.json",
    ]  # fmt: skip
    assert record["format"] == "fewview-views/1"
    assert record["views"][0]["pixel_pitch_mm"] == [18.0, 17.5]
    assert "sdd_mm" not in record["views"][1]
    with Image.open(folder / "view_00.tiff") as image:
        assert (image.mode, image.size) == ("F", (24, 20))


def test_views_written_by_hand_need_only_the_documented_keys(folder):
    def minimal(record):
        kept = {"image", "calibrated", "beam", "primary_angle_deg", "pixel_pitch_mm",
                "sdd_mm", "sod_mm"}  # fmt: skip
        record["views"] = [
            {key: view[key] for key in kept & view.keys()} for view in record["views"]
        ]

    edit(folder, minimal)
    found = read_views(folder)
    assert found.geometries[0].num_rows == 20
    assert found.geometries[0].detector_offset_mm == (0.0, 0.0)
    assert found.source == ("drr", "drr")
    assert found.geometry_source == ("measured", "measured")


def test_a_full_folder_is_kept_unless_forced(views, folder):
    with pytest.raises(ValueError, match="--force"):
        write_views(views, folder)
    write_views(replace(views, images=views.images + 1.0), folder, force=True)
    assert torch.equal(read_views(folder).images, views.images + 1.0)


def test_a_failed_write_leaves_the_old_views(views, folder, monkeypatch):
    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr("fewview.xray.views.to_record", fail)
    with pytest.raises(OSError, match="no space"):
        write_views(views, folder, force=True)
    monkeypatch.undo()
    assert torch.equal(read_views(folder).images, views.images)


def test_a_preview_shows_all_views_with_labels(views, tmp_path):
    preview(views, tmp_path / "preview.png")
    with Image.open(tmp_path / "preview.png") as image:
        pixels = np.asarray(image)
        assert image.mode == "L"
    assert pixels.shape[1] > 1.9 * 20
    assert pixels[:20].max() == 255  # the labels
    assert pixels[20:].max() == 255


def test_sixteen_views_fit_a_preview(volume, tmp_path):
    many = drr(volume, [preset("chest", angle_deg=10.0 * k, size=24) for k in range(16)])
    preview(many, tmp_path / "preview.png")
    with Image.open(tmp_path / "preview.png") as image:
        assert image.size == (4 * 24, 4 * 44)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"calibrated": (True,)}, "2 images, but"),
        ({"isocenter_mm": (0.0, 0.0, float("nan"))}, "isocenter_mm must be finite"),
        ({"images": torch.zeros(2, 1, 20, 25)}, "view 0: image of"),
        ({"images": torch.zeros(0, 1, 20, 24)}, "no views"),
    ],
)
def test_views_that_do_not_fit_together_are_refused(views, changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        replace(views, **changes)


def set_view(**values):
    return lambda record: record["views"][0].update(values)


def drop_view_key(key):
    return lambda record: record["views"][0].pop(key)


BAD_RECORDS = {
    "another format": (lambda r: r.update(format="fewview-views/9"), "format is 'fewview-views/9'"),
    "no format": (lambda r: r.pop("format"), "format is None"),
    "unknown key": (lambda r: r.update(angle=3), "unknown key 'angle'"),
    "unknown view key": (set_view(sid_mm=3), "view 0: unknown key 'sid_mm'; there are"),
    "no views": (lambda r: r.update(views=[]), "'views' must be a list"),
    "a view that is no object": (lambda r: r.update(views=["a"]), "view 0 must be an object"),
    "no isocenter": (lambda r: r.pop("isocenter_mm"), "has no 'isocenter_mm'"),
    "short isocenter": (lambda r: r.update(isocenter_mm=[1, 2]), "3 finite numbers"),
    "no geometry": (drop_view_key("beam"), "view 0 has no 'beam': a view needs its geometry"),
    "no angle": (drop_view_key("primary_angle_deg"), "view 0 has no 'primary_angle_deg'"),
    "no distance": (drop_view_key("sdd_mm"), "view 0: a cone beam needs sdd_mm"),
    "no pitch": (drop_view_key("pixel_pitch_mm"), "view 0 has no 'pixel_pitch_mm'"),
    "other beam": (set_view(beam="fan"), "'beam' must be"),
    "word for number": (set_view(sdd_mm="far"), "'sdd_mm' must be a finite number"),
    "truth for number": (set_view(primary_angle_deg=True), "must be a finite number"),
    "not a number": (set_view(primary_angle_deg=float("nan")), "must be a finite number"),
    "distances swapped": (set_view(sdd_mm=100.0, sod_mm=200.0), "view 0: need 0 < sod_mm < sdd_mm"),
    "negative pitch": (set_view(pixel_pitch_mm=[1, -1]), "'pixel_pitch_mm' must be positive"),
    "one pitch": (set_view(pixel_pitch_mm=1.5), "2 finite numbers"),
    "half a pixel": (set_view(num_rows=1.5), "'num_rows' must be a positive whole number"),
    "other image size": (set_view(num_rows=21), "view_00.tiff has 20 x 24 pixels, its detector 21"),
    "calibrated missing": (drop_view_key("calibrated"), "'calibrated' must be true or false"),
    "unknown source": (set_view(source="camera"), "'source' must be one of"),
    "image elsewhere": (set_view(image="../secret.tiff"), "must name a file in the folder"),
    "image missing": (set_view(image="view_07.tiff"), "there is no image"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_RECORDS)
def test_a_record_that_cannot_be_is_refused_in_one_line(folder, name):
    change, complaint = BAD_RECORDS[name]
    edit(folder, change)
    with pytest.raises(ValueError, match=complaint) as error:
        read_views(folder)
    assert "\n" not in str(error.value)


def test_a_folder_without_geometry_is_refused(folder):
    (folder / "views.json").unlink()
    with pytest.raises(ValueError, match=r"has no views.json, so its images have no geometry"):
        read_views(folder)


@pytest.mark.parametrize("text", ["", "{", '["a"]', "\udcff"])
def test_a_damaged_record_is_refused(folder, text):
    (folder / "views.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=r"views.json (is not valid|must hold a) JSON"):
        read_views(folder)


def test_images_of_two_sizes_are_refused(folder):
    Image.fromarray(np.zeros((10, 24), np.float32)).save(folder / "view_01.tiff")
    edit(folder, lambda record: record["views"][1].update(num_rows=10))
    with pytest.raises(ValueError, match="all images need one size"):
        read_views(folder)


def test_pixels_that_are_no_numbers_are_refused(folder):
    pixels = np.zeros((20, 24), np.float32)
    pixels[3, 4] = np.nan
    Image.fromarray(pixels).save(folder / "view_00.tiff")
    with pytest.raises(ValueError, match=r"view_00.tiff has pixels that are not numbers"):
        read_views(folder)


def test_a_truncated_or_foreign_image_is_refused(folder):
    path = folder / "view_00.tiff"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match="cannot read the image") as error:
        read_views(folder)
    assert "\n" not in str(error.value)
    Image.fromarray(np.zeros((20, 24), np.uint8)).save(path)
    with pytest.raises(ValueError, match="is not a float32 TIFF"):
        read_views(folder)


def test_a_geometry_file_is_a_view_without_its_image(folder, views, tmp_path):
    view = json.loads((folder / "views.json").read_text())["views"][0]
    path = tmp_path / "geometry.json"
    path.write_text(json.dumps(view))
    assert read_geometry(path) == views.geometries[0]
    for key in ("image", "calibrated", "num_rows", "num_cols"):
        del view[key]
    path.write_text(json.dumps(view))
    found = read_geometry(path)
    assert (found.num_rows, found.num_cols) == (24, 25)  # 430 mm at 18 and 17.5 mm
    with pytest.raises(ValueError, match="there is no geometry file"):
        read_geometry(tmp_path / "nowhere.json")
    assert isinstance(views, Views)


def test_a_given_geometry_is_not_assumed(folder, tmp_path):
    view = json.loads((folder / "views.json").read_text())["views"][1]
    path = tmp_path / "geometry.json"
    path.write_text(json.dumps(view))
    with pytest.raises(ValueError, match=r"geometry.json: its 'geometry' is 'assumed', but"):
        read_geometry(path)
