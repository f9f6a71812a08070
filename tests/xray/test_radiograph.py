"""Pictures become views: bone bright, on the detector, with a geometry they admit to."""

import io
import json
import logging

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from fewview.data.volume import Volume
from fewview.xray.geometry import preset
from fewview.xray.radiograph import read_radiographs
from fewview.xray.views import drr, write_views

RAMP = np.tile(np.linspace(0, 255, 64), (48, 1)).astype(np.uint8)  # brighter to the right


@pytest.fixture
def picture(tmp_path):
    """A gray PNG, 48 rows by 64 columns."""
    path = tmp_path / "pa.png"
    Image.fromarray(RAMP).save(path)
    return path


def write_dicom(path, pixels=RAMP, **tags):
    """A radiograph with the tags that matter; a tag of None is left out."""
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = pydicom.Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    values = {
        "Modality": "DX", "PhotometricInterpretation": "MONOCHROME2", "SamplesPerPixel": 1,
        "Rows": pixels.shape[0], "Columns": pixels.shape[1], "BitsAllocated": 8,
        "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0, "PixelData": pixels.tobytes(),
    } | tags  # fmt: skip
    for name, value in values.items():
        if value is not None:
            setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def columns(views, index=0):
    """Mean of the columns of the picture's own rows."""
    image = views.images[index, 0]
    return image[image.sum(1) > 0].mean(0)


def test_a_picture_becomes_a_display_style_view_of_an_assumed_geometry(picture, caplog):
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
def test_gray_is_read_from_any_common_file(tmp_path, suffix, kind):
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


def test_an_ap_radiograph_hung_like_a_pa_one_is_mirrored(picture, tmp_path):
    pa, ap = (read_radiographs([picture], [angle], preset("chest")) for angle in (0.0, 180.0))
    torch.testing.assert_close(ap.images, pa.images.flip(-1))
    path = write_dicom(tmp_path / "ap.dcm", ViewPosition="AP")
    tagged = read_radiographs([path], None, preset("chest"))
    torch.testing.assert_close(tagged.images, ap.images)
    assert tagged.geometries[0].primary_angle_deg == 180.0


def test_monochrome1_is_turned_bone_bright(tmp_path):
    plain = write_dicom(tmp_path / "2.dcm", ViewPosition="PA")
    inverted = write_dicom(
        tmp_path / "1.dcm", 255 - RAMP, ViewPosition="PA", PhotometricInterpretation="MONOCHROME1"
    )
    views = read_radiographs([plain, inverted], None, preset("chest"))
    torch.testing.assert_close(views.images[0], views.images[1])


def test_a_header_with_all_distances_is_measured(tmp_path):
    path = write_dicom(
        tmp_path / "xa.dcm", Modality="XA", PositionerPrimaryAngle=30.0,
        PositionerSecondaryAngle=-10.0, DistanceSourceToDetector=1200.0,
        DistanceSourceToPatient=800.0, ImagerPixelSpacing=[5.0, 2.5],
    )  # fmt: skip
    geometry = read_radiographs([path], strict=True).geometries[0]
    assert (geometry.primary_angle_deg, geometry.secondary_angle_deg) == (30.0, -10.0)
    assert (geometry.sdd_mm, geometry.sod_mm) == (1200.0, 800.0)
    # 48 rows of 5 mm are the longer side, 240 mm; the detector's 256 pixels now cover it.
    assert geometry.pixel_pitch_mm == pytest.approx((240 / 256, 240 / 256))


def test_in_a_plain_radiograph_the_distance_to_the_patient_is_not_the_isocenter(tmp_path):
    path = write_dicom(
        tmp_path / "dx.dcm", ViewPosition="PA", DistanceSourceToDetector=1200.0,
        DistanceSourceToPatient=800.0, ImagerPixelSpacing=[1.0, 1.0],
    )  # fmt: skip
    with pytest.raises(ValueError, match="distances are not known"):
        read_radiographs([path], strict=True)


def test_a_file_beside_the_picture_has_its_geometry(picture):
    record = {
        "beam": "cone", "primary_angle_deg": 45.0, "sdd_mm": 1000.0, "sod_mm": 700.0,
        "num_rows": 48, "num_cols": 64, "pixel_pitch_mm": [4.0, 4.0],
    }  # fmt: skip
    picture.with_suffix(".json").write_text(json.dumps(record))
    views = read_radiographs([picture], strict=True)
    assert views.geometries[0].primary_angle_deg == 45.0
    assert views.geometries[0].pixel_pitch_mm == (4.0, 4.0)
    assert views.images.shape == (1, 1, 48, 64)
    assert read_radiographs([picture], [10.0]).geometries[0].primary_angle_deg == 10.0


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


def test_a_color_image_is_refused(tmp_path):
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


def test_several_images_in_one_file_are_refused(tmp_path):
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


def test_dicom_files_that_are_no_radiographs_are_refused(tmp_path):
    refused(write_dicom(tmp_path / "ct.dcm", Modality="CT"), "its modality is CT")
    refused(write_dicom(tmp_path / "plan.dcm", PixelData=None), "without an image")
    path = write_dicom(tmp_path / "short.dcm", PixelData=RAMP.tobytes()[:100])
    refused(path, "cannot read the")


def tagged(tmp_path, **tags):
    """The view that a DICOM file with these tags becomes."""
    return read_radiographs([write_dicom(tmp_path / "tagged.dcm", **tags)], keep_markings=True)


def contradicted(tmp_path, complaint, **tags):
    path = write_dicom(tmp_path / "tagged.dcm", **tags)
    with pytest.raises(ValueError, match=complaint) as error:
        read_radiographs([path])
    assert "\n" not in str(error.value)


def test_the_modality_lut_is_applied_before_the_window(tmp_path):
    # HU-like values 2 v - 100: the window 100 to 200 shows the stored values 100 to 150.
    views = tagged(tmp_path, ViewPosition="PA", RescaleSlope=2, RescaleIntercept=-100,
                   RescaleType="US", WindowCenter=150, WindowWidth=100)  # fmt: skip
    shown = columns(views)[[128, 200, 0]]  # columns 32 and 50 of the picture, and the first
    expected = [(RAMP[0, 32] - 100.0) / 50.0, 1.0, 0.0]
    torch.testing.assert_close(
        shown, torch.tensor(expected, dtype=torch.float32), atol=0.05, rtol=0
    )


def test_a_voi_lut_bends_the_gray_curve(tmp_path):
    item = pydicom.Dataset()
    item.LUTDescriptor = [256, 0, 8]
    item.LUTData = [value * value // 255 for value in range(256)]
    item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
    bent = tagged(tmp_path, ViewPosition="PA", VOILUTSequence=[item])
    plain = tagged(tmp_path, ViewPosition="PA")
    assert float(columns(bent)[128]) == pytest.approx(float(columns(plain)[128]) ** 2, abs=0.02)


def test_twelve_signed_bits_are_read_as_numbers(tmp_path):
    ramp = np.tile(np.linspace(-2048, 2047, 64), (48, 1)).astype(np.int16)
    stored = (ramp & 0x0FFF).astype(np.uint16)  # the sign is bit 11, the four above are empty
    views = tagged(tmp_path, pixels=stored, ViewPosition="PA", BitsAllocated=16, BitsStored=12,
                   HighBit=11, PixelRepresentation=1)  # fmt: skip
    assert columns(views).diff().min() >= 0


def test_a_raw_image_is_turned_by_its_sign_and_takes_the_logarithm(tmp_path):
    attenuation = np.tile(np.linspace(0, 5, 64), (48, 1))
    counts = np.rint(60000 * np.exp(-attenuation)).astype(np.uint16)
    views = tagged(tmp_path, pixels=counts, ViewPosition="PA", BitsAllocated=16, BitsStored=16,
                   HighBit=15, PresentationIntentType="FOR PROCESSING",
                   PixelIntensityRelationship="LIN", PixelIntensityRelationshipSign=1)  # fmt: skip
    assert float(columns(views)[128]) == pytest.approx(0.5, abs=0.02)
    assert columns(views).diff().min() >= 0


def test_a_jpeg_inside_a_dicom_file_is_read(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(RAMP).save(buffer, format="JPEG", quality=95)
    path = write_dicom(tmp_path / "jpeg.dcm", ViewPosition="PA")
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
    dataset.PixelData = pydicom.encaps.encapsulate([buffer.getvalue()])
    dataset["PixelData"].VR = "OB"
    dataset.save_as(path)
    found, plain = (
        columns(read_radiographs([one])) for one in (path, write_dicom(tmp_path / "p.dcm",
                                                                      ViewPosition="PA"))
    )  # fmt: skip
    torch.testing.assert_close(found, plain, atol=0.03, rtol=0)


def test_a_palette_of_grays_is_read(tmp_path):
    path = tmp_path / "palette.png"
    palette = Image.frombytes("P", (64, 48), (255 - RAMP).tobytes())  # entry k shows 255 - k
    palette.putpalette([255 - index // 3 for index in range(768)])
    palette.save(path)
    views = read_radiographs([path], [0.0], preset("chest", size=64))
    torch.testing.assert_close(
        columns(views), torch.from_numpy(RAMP[0] / 255.0).float(), atol=0.03, rtol=0
    )


def test_pixel_spacing_at_the_patient_is_magnified_to_the_detector(tmp_path):
    tags = {"ViewPosition": "PA", "DistanceSourceToDetector": 1800.0,
            "EstimatedRadiographicMagnificationFactor": 1.2}  # fmt: skip
    on_detector = tagged(tmp_path, **tags, ImagerPixelSpacing=[6.0, 6.0])
    at_patient = tagged(
        tmp_path, **tags, PixelSpacing=[5.0, 5.0], PixelSpacingCalibrationType="GEOMETRY"
    )
    for views in (on_detector, at_patient):
        assert views.geometry_source == ("measured",)
        assert views.geometries[0].sod_mm == pytest.approx(1500.0)
        assert views.geometries[0].pixel_pitch_mm[1] == pytest.approx(64 * 6.0 / 256)


def test_two_spacings_of_a_calibrated_image_give_the_isocenter(tmp_path):
    views = tagged(
        tmp_path, ViewPosition="PA", DistanceSourceToDetector=1800.0, ImagerPixelSpacing=[6.0, 6.0],
        PixelSpacing=[5.0, 5.0], PixelSpacingCalibrationType="GEOMETRY",
    )  # fmt: skip
    assert views.geometry_source == ("measured",)
    assert views.geometries[0].sod_mm == pytest.approx(1500.0)


def test_pixel_spacing_alone_counts_only_where_it_makes_a_radiograph(tmp_path, caplog):
    taken = tagged(tmp_path, ViewPosition="PA", PixelSpacing=[5.0, 5.0])
    assert taken.geometries[0].pixel_pitch_mm[1] == pytest.approx(64 * 5.0 / 256)
    assert taken.geometry_source == ("assumed",)
    assert "taken for the detector's" in caplog.text
    tiny = tagged(tmp_path, ViewPosition="PA", PixelSpacing=[0.1, 0.1])
    assert tiny.geometries[0].pixel_pitch_mm == preset("chest").pixel_pitch_mm
    assert "would make it 6 mm" in caplog.text


def test_a_known_detector_distance_is_kept_and_the_isocenter_assumed(tmp_path, caplog):
    views = tagged(tmp_path, ViewPosition="AP", DistanceSourceToDetector=1000.0,
                   ImagerPixelSpacing=[6.0, 6.0])  # fmt: skip
    assert (views.geometries[0].sdd_mm, views.geometries[0].sod_mm) == (1000.0, 800.0)
    assert views.geometry_source == ("assumed",)
    assert "the isocenter is assumed 200 mm before the detector" in caplog.text


@pytest.mark.parametrize(
    ("position", "angle"), [("PA", 0.0), ("AP", 180.0), ("LL", 90.0), ("RL", -90.0)]
)
def test_view_position_is_an_angle(tmp_path, position, angle):
    assert tagged(tmp_path, ViewPosition=position).geometries[0].primary_angle_deg == angle


@pytest.mark.parametrize(
    ("position", "orientation", "mirrored"),
    [("PA", "L\\F", False), ("PA", "R\\F", True), ("AP", "R\\F", False), ("AP", "L\\F", True),
     ("LL", "P\\F", False), ("LL", "A\\F", True), ("RL", "A\\F", False)],
)  # fmt: skip
def test_patient_orientation_decides_what_is_mirrored(tmp_path, position, orientation, mirrored):
    views = tagged(tmp_path, ViewPosition=position, PatientOrientation=orientation.split("\\"))
    rising = columns(views).diff().sum() > 0
    assert bool(rising) != mirrored


def test_a_picture_stored_sideways_is_set_upright(tmp_path):
    views = tagged(tmp_path, ViewPosition="PA", PatientOrientation=["F", "L"])
    image = views.images[0, 0]
    rows = image[:, image.sum(0) > 0].mean(1)
    assert rows.diff().min() >= 0  # what ran along the columns now runs down, toward the feet


@pytest.mark.parametrize(
    ("tags", "complaint"),
    [
        ({"PositionerPrimaryAngle": 90.0}, r"\(0018,1510\) 90.0 is no View .* \(0018,5101\) PA"),
        ({"PatientOrientation": ["P", "F"]}, r"Patient Orientation \(0020,0020\) P\\F cannot be"),
        ({"PatientOrientation": ["L", "R"]}, r"\(0020,0020\) L\\R is not upright"),
        ({"DistanceSourceToDetector": 1000.0, "DistanceSourceToPatient": 1200.0},
         r"\(0018,1111\) 1200.0 is not less than"),
        ({"EstimatedRadiographicMagnificationFactor": 0.8}, r"\(0018,1114\) 0.8 is below 1"),
        ({"PixelSpacing": [3.0, 3.0], "ImagerPixelSpacing": [2.0, 2.0]},
         r"\(0028,0030\) 3.0\\3.0 at the patient is wider than .* \(0018,1164\)"),
        ({"PixelSpacing": [1.0, 1.0], "ImagerPixelSpacing": [2.0, 2.0],
          "PixelSpacingCalibrationType": "GEOMETRY",
          "EstimatedRadiographicMagnificationFactor": 1.1}, r"\(0018,1114\) 1.1, but"),
        ({"Modality": "XA", "DistanceSourceToDetector": 1000.0, "DistanceSourceToPatient": 500.0,
          "EstimatedRadiographicMagnificationFactor": 1.1}, "magnification of 1.1 puts"),
    ],
)  # fmt: skip
def test_a_header_that_contradicts_itself_is_refused_by_its_tag(tmp_path, tags, complaint):
    contradicted(tmp_path, complaint, **({"ViewPosition": "PA"} | tags))


def test_a_flag_against_the_header_is_taken_and_told(tmp_path, caplog):
    path = write_dicom(tmp_path / "ap.dcm", ViewPosition="AP")
    assert read_radiographs([path], [0.0]).geometries[0].primary_angle_deg == 0.0
    assert "its file says 180 degrees; the given 0 degrees are taken" in caplog.text
