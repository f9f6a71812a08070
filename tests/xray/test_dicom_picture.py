"""DICOM pixels are shown as a viewing station shows them, bone bright."""

import io

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image

from fewview.xray.dicom_picture import read_dicom
from fewview.xray.geometry import preset
from fewview.xray.radiograph import read_radiographs

RAMP = np.tile(np.linspace(0, 255, 64), (48, 1)).astype(np.uint8)  # brighter to the right


def test_monochrome1_is_turned_bone_bright(write_dicom, tmp_path):
    plain = write_dicom(tmp_path / "2.dcm", ViewPosition="PA")
    inverted = write_dicom(
        tmp_path / "1.dcm", 255 - RAMP, ViewPosition="PA", PhotometricInterpretation="MONOCHROME1"
    )
    views = read_radiographs([plain, inverted], None, preset("chest"))
    torch.testing.assert_close(views.images[0], views.images[1])


def test_dicom_files_that_are_no_radiographs_are_refused(refused_dicom):
    refused_dicom("its modality is CT", Modality="CT")
    refused_dicom("without an image", PixelData=None)
    refused_dicom("cannot read the", PixelData=RAMP.tobytes()[:100])


def test_the_modality_lut_is_applied_before_the_window(tagged, columns):
    # HU-like values 2 v - 100: the window 100 to 200 shows the stored values 100 to 150.
    views = tagged(ViewPosition="PA", RescaleSlope=2, RescaleIntercept=-100,
                   RescaleType="US", WindowCenter=150, WindowWidth=100)  # fmt: skip
    shown = columns(views)[[128, 200, 0]]  # columns 32 and 50 of the picture, and the first
    expected = [(RAMP[0, 32] - 100.0) / 50.0, 1.0, 0.0]
    torch.testing.assert_close(
        shown, torch.tensor(expected, dtype=torch.float32), atol=0.05, rtol=0
    )


def test_a_voi_lut_bends_the_gray_curve(tagged, columns):
    item = pydicom.Dataset()
    item.LUTDescriptor = [256, 0, 8]
    item.LUTData = [value * value // 255 for value in range(256)]
    item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
    bent = tagged(ViewPosition="PA", VOILUTSequence=[item])
    plain = tagged(ViewPosition="PA")
    assert float(columns(bent)[128]) == pytest.approx(float(columns(plain)[128]) ** 2, abs=0.02)


def test_twelve_signed_bits_are_read_as_numbers(tagged, columns):
    ramp = np.tile(np.linspace(-2048, 2047, 64), (48, 1)).astype(np.int16)
    stored = (ramp & 0x0FFF).astype(np.uint16)  # the sign is bit 11, the four above are empty
    views = tagged(pixels=stored, ViewPosition="PA", BitsAllocated=16, BitsStored=12,
                   HighBit=11, PixelRepresentation=1)  # fmt: skip
    assert columns(views).diff().min() >= 0


def test_a_raw_image_is_turned_by_its_sign_and_takes_the_logarithm(tagged, columns):
    attenuation = np.tile(np.linspace(0, 5, 64), (48, 1))
    counts = np.rint(60000 * np.exp(-attenuation)).astype(np.uint16)
    views = tagged(pixels=counts, ViewPosition="PA", BitsAllocated=16, BitsStored=16,
                   HighBit=15, PresentationIntentType="FOR PROCESSING",
                   PixelIntensityRelationship="LIN", PixelIntensityRelationshipSign=1)  # fmt: skip
    assert float(columns(views)[128]) == pytest.approx(0.5, abs=0.02)
    assert columns(views).diff().min() >= 0


def test_a_jpeg_inside_a_dicom_file_is_read(write_dicom, columns, tmp_path):
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


@pytest.mark.parametrize(
    ("representation", "padding", "limit", "vr"),
    [(1, -2000, None, "SS"), (1, 63536, None, "US"),  # the same 16 bits
     (1, -2000, -1900, "SS"), (0, 40000, None, "US"), (0, 40000, 41000, "US")],
)  # fmt: skip
@pytest.mark.parametrize("polarity", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_the_darkest_shown_and_shifts_nothing(
    write_dicom, tmp_path, representation, padding, limit, vr, polarity
):
    tags = {"ViewPosition": "PA", "PhotometricInterpretation": polarity, "BitsAllocated": 16,
            "BitsStored": 16, "HighBit": 15, "PixelRepresentation": representation}  # fmt: skip
    ramp = np.tile(np.linspace(100, 355, 64), (48, 1)).astype(np.int64)
    padded = np.pad(ramp, ((0, 0), (16, 16)), constant_values=limit or padding)
    path = write_dicom(tmp_path / "padded.dcm", (padded % 2**16).astype(np.uint16), **tags)
    dataset = pydicom.dcmread(path)
    dataset.add_new("PixelPaddingValue", vr, padding)
    if limit is not None:
        dataset.add_new("PixelPaddingRangeLimit", vr, limit)
    dataset.save_as(path)
    found, _ = read_dicom(path)
    plain, _ = read_dicom(write_dicom(tmp_path / "plain.dcm", ramp.astype(np.uint16), **tags))
    np.testing.assert_array_equal(found[:, 16:-16], plain)
    assert (found[:, :16] == plain.min()).all()


def test_padding_does_not_shift_the_logarithm_of_a_raw_image(write_dicom, tmp_path):
    counts = np.tile(np.geomspace(60000, 600, 64), (48, 1)).astype(np.uint16)
    tags = {"BitsAllocated": 16, "BitsStored": 16, "HighBit": 15, "PixelPaddingValue": 0,
            "PresentationIntentType": "FOR PROCESSING", "PixelIntensityRelationship": "LIN",
            "PixelIntensityRelationshipSign": 1}  # fmt: skip
    plain, _ = read_dicom(write_dicom(tmp_path / "plain.dcm", counts, **tags))
    counts[:, :8] = 0
    found, _ = read_dicom(write_dicom(tmp_path / "padded.dcm", counts, **tags))
    np.testing.assert_array_equal(found[:, 8:], plain[:, 8:])
    assert (found[:, :8] == plain[:, 8:].min()).all()


def test_a_picture_of_padding_alone_is_refused(refused_dicom):
    complaint = r"all its pixels are Pixel Padding Value \(0028,0120\) 0"
    refused_dicom(complaint, pixels=np.zeros_like(RAMP), PixelPaddingValue=0)
