"""A DICOM header is taken for what it says, and no further."""

import pytest
import torch

from fewview.xray.geometry import preset
from fewview.xray.radiograph import read_radiographs


def test_a_header_with_all_distances_is_measured(write_dicom, tmp_path):
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


def test_in_a_plain_radiograph_the_distance_to_the_patient_is_not_the_isocenter(
    write_dicom, tmp_path
):
    path = write_dicom(
        tmp_path / "dx.dcm", ViewPosition="PA", DistanceSourceToDetector=1200.0,
        DistanceSourceToPatient=800.0, ImagerPixelSpacing=[1.0, 1.0],
    )  # fmt: skip
    with pytest.raises(ValueError, match="distances are not known"):
        read_radiographs([path], strict=True)


def test_pixel_spacing_at_the_patient_is_magnified_to_the_detector(tagged):
    tags = {"ViewPosition": "PA", "DistanceSourceToDetector": 1800.0,
            "EstimatedRadiographicMagnificationFactor": 1.2}  # fmt: skip
    on_detector = tagged(**tags, ImagerPixelSpacing=[6.0, 6.0])
    at_patient = tagged(**tags, PixelSpacing=[5.0, 5.0], PixelSpacingCalibrationType="GEOMETRY")
    for views in (on_detector, at_patient):
        assert views.geometry_source == ("measured",)
        assert views.geometries[0].sod_mm == pytest.approx(1500.0)
        assert views.geometries[0].pixel_pitch_mm[1] == pytest.approx(64 * 6.0 / 256)


def test_two_spacings_of_a_calibrated_image_give_the_isocenter(tagged):
    views = tagged(
        ViewPosition="PA", DistanceSourceToDetector=1800.0, ImagerPixelSpacing=[6.0, 6.0],
        PixelSpacing=[5.0, 5.0], PixelSpacingCalibrationType="GEOMETRY",
    )  # fmt: skip
    assert views.geometry_source == ("measured",)
    assert views.geometries[0].sod_mm == pytest.approx(1500.0)


def test_pixel_spacing_alone_counts_only_where_it_makes_a_radiograph(tagged, caplog):
    taken = tagged(ViewPosition="PA", PixelSpacing=[5.0, 5.0])
    assert taken.geometries[0].pixel_pitch_mm[1] == pytest.approx(64 * 5.0 / 256)
    assert taken.geometry_source == ("assumed",)
    assert "taken for the detector's" in caplog.text
    tiny = tagged(ViewPosition="PA", PixelSpacing=[0.1, 0.1])
    assert tiny.geometries[0].pixel_pitch_mm == preset("chest").pixel_pitch_mm
    assert "would make it 6 mm" in caplog.text


def test_a_known_detector_distance_is_kept_and_the_isocenter_assumed(tagged, caplog):
    views = tagged(ViewPosition="AP", DistanceSourceToDetector=1000.0,
                   ImagerPixelSpacing=[6.0, 6.0])  # fmt: skip
    assert (views.geometries[0].sdd_mm, views.geometries[0].sod_mm) == (1000.0, 800.0)
    assert views.geometry_source == ("assumed",)
    assert "the isocenter is assumed 200 mm before the detector" in caplog.text


@pytest.mark.parametrize(
    ("position", "angle"), [("PA", 0.0), ("AP", 180.0), ("LL", 90.0), ("RL", -90.0)]
)
def test_view_position_is_an_angle(tagged, position, angle):
    assert tagged(ViewPosition=position).geometries[0].primary_angle_deg == angle


@pytest.mark.parametrize(
    ("position", "orientation", "mirrored"),
    [("PA", "L\\F", False), ("PA", "R\\F", True), ("AP", "R\\F", False), ("AP", "L\\F", True),
     ("LL", "P\\F", False), ("LL", "A\\F", True), ("RL", "A\\F", False)],
)  # fmt: skip
def test_patient_orientation_decides_what_is_mirrored(
    tagged, columns, position, orientation, mirrored
):
    views = tagged(ViewPosition=position, PatientOrientation=orientation.split("\\"))
    rising = columns(views).diff().sum() > 0
    assert bool(rising) != mirrored


def test_a_picture_stored_sideways_is_set_upright(tagged):
    views = tagged(ViewPosition="PA", PatientOrientation=["F", "L"])
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
def test_a_header_that_contradicts_itself_is_refused_by_its_tag(refused_dicom, tags, complaint):
    refused_dicom(complaint, **({"ViewPosition": "PA"} | tags))


def test_a_flag_against_the_header_is_taken_and_told(write_dicom, tmp_path, caplog):
    path = write_dicom(tmp_path / "ap.dcm", ViewPosition="AP")
    assert read_radiographs([path], [0.0]).geometries[0].primary_angle_deg == 0.0
    assert "its file says 180 degrees; the given 0 degrees are taken" in caplog.text


def test_a_flag_decides_where_the_header_contradicts_itself_on_the_angle(tagged, caplog):
    tags = {"ViewPosition": "PA", "PositionerPrimaryAngle": 90.0}
    assert tagged([90.0], **tags).geometries[0].primary_angle_deg == 90.0
    assert "(0018,1510) 90.0 is no View Position (0018,5101) PA" in caplog.text
    assert "the given 90 degrees are taken" in caplog.text


def test_without_a_flag_such_a_header_is_refused_and_asks_for_one(refused_dicom):
    tags = {"ViewPosition": "PA", "PositionerPrimaryAngle": 90.0}
    refused_dicom(r"contradicts itself: .* \(0018,5101\) PA; give --angles-deg$", **tags)


@pytest.mark.parametrize("orientation", [["", ""], "L", ["L", ""], ["", "F"], "LF", "RF", ""])
def test_an_incomplete_patient_orientation_counts_as_missing(tagged, orientation, caplog):
    views = tagged(ViewPosition="PA", PatientOrientation=orientation)
    assert torch.equal(views.images, tagged(ViewPosition="PA").images)
    assert ("is not a pair and not looked at" in caplog.text) == any(orientation)


def test_an_imager_pitch_counts_only_where_it_makes_a_radiograph(tagged, caplog):
    tags = {"ViewPosition": "PA", "DistanceSourceToDetector": 1800.0,
            "EstimatedRadiographicMagnificationFactor": 1.2}  # fmt: skip
    tiny = tagged(**tags, ImagerPixelSpacing=[0.143, 0.143])
    assert tiny.geometries[0].pixel_pitch_mm == preset("chest").pixel_pitch_mm
    assert tiny.geometry_source == ("assumed",)
    assert "Imager Pixel Spacing (0018,1164) would make it 9 mm), 430 mm is assumed" in caplog.text
    calibrated = tagged(**tags, PixelSpacing=[0.1, 0.1], PixelSpacingCalibrationType="GEOMETRY")
    assert calibrated.geometry_source == ("assumed",)
    assert "(Pixel Spacing (0028,0030) would make it 8 mm), 430 mm is assumed" in caplog.text


def test_strict_says_which_pitch_it_does_not_believe(write_dicom, tmp_path):
    path = write_dicom(
        tmp_path / "tiny.dcm", ViewPosition="PA", DistanceSourceToDetector=1800.0,
        EstimatedRadiographicMagnificationFactor=1.2, ImagerPixelSpacing=[0.143, 0.143],
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"tiny.dcm: its size .* \(0018,1164\) would make it 9 mm"):
        read_radiographs([path], strict=True)


def test_a_pitch_of_zero_is_not_known(tagged):
    views = tagged(ViewPosition="PA", ImagerPixelSpacing=[0.0, 0.0], PixelSpacing=[5.0, 5.0])
    assert views.geometries[0].pixel_pitch_mm[1] == pytest.approx(64 * 5.0 / 256)


@pytest.mark.parametrize("value", [0.143, [0.143, 0.0], [1.0, 1.0, 1.0], ["", 0.143]])
@pytest.mark.parametrize("keyword", ["ImagerPixelSpacing", "PixelSpacing"])
def test_a_pitch_that_is_no_pair_is_refused(refused_dicom, keyword, value):
    refused_dicom(
        r"tagged.dcm: (Imager )?Pixel Spacing \(.*\) .*0.* is no pair of positive lengths$",
        ViewPosition="PA", **{keyword: value},
    )  # fmt: skip


def test_the_magnification_puts_the_isocenter_also_where_the_detector_is_assumed(tagged, caplog):
    tags = {"ViewPosition": "PA", "EstimatedRadiographicMagnificationFactor": 1.2}
    geometry = tagged(**tags, ImagerPixelSpacing=[6.0, 6.0]).geometries[0]
    assert (geometry.sdd_mm, geometry.sod_mm) == (1800.0, pytest.approx(1500.0))
    assert "the 'chest' geometry is assumed at the magnification of 1.2" in caplog.text
    at_patient = tagged(**tags, PixelSpacing=[5.0, 5.0], PixelSpacingCalibrationType="GEOMETRY")
    assert at_patient.geometries[0].pixel_pitch_mm[1] == pytest.approx(64 * 6.0 / 256)
    assert at_patient.geometry_source == ("assumed",)


def test_a_magnification_of_one_says_nothing(tagged):
    views = tagged(ViewPosition="PA", EstimatedRadiographicMagnificationFactor=1.0)
    assert views.geometries[0].sod_mm == preset("chest").sod_mm
