"""Files of X-ray pictures: pixels, and what a DICOM header says about the geometry.

Reads PNG, JPEG, TIFF and single DICOM images into one form, bone bright. What the
pixels mean for a reconstruction is decided in `radiograph.py`.
"""

import math
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
from jaxtyping import Float32, Shaped
from PIL import Image, UnidentifiedImageError
from pydicom.errors import InvalidDicomError

MOST_PIXELS = 100_000_000  # a radiograph has at most about 20 million
COLOR_TOLERANCE = 2  # gray stored as RGB may differ by rounding, as in JPEG
VIEW_POSITION_DEG = {"PA": 0.0, "AP": 180.0, "LL": 90.0, "RL": -90.0}
MODALITIES = {"DX", "CR", "RF", "XA", "RG", "PX", "OT"}
PILLOW_FORMATS = ("PNG", "JPEG", "TIFF")


@dataclass(frozen=True, eq=False)
class Picture:
    """One X-ray picture as it lies in its file."""

    pixels: Float32[np.ndarray, "row col"]
    """Values, bone bright."""

    is_float: bool = False
    """Whether the file holds floating-point numbers, which are line integrals."""

    tags: dict[str, float] = field(default_factory=dict)
    """What the header says: primary_angle_deg, secondary_angle_deg, sdd_mm, sod_mm."""

    pixel_pitch_mm: tuple[float, float] | None = None
    """Distance of pixel centers (v, u) on the detector, where the header says it."""


def read_picture(path: str | Path) -> Picture:
    """Read one X-ray picture.

    Raises:
        ValueError: If it is missing, damaged, in color, constant, not finite, or no
            single X-ray picture at all.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no image {path}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty")
    picture = _read_dicom(path) if _is_dicom(path) else _read_image(path)
    if not np.isfinite(picture.pixels).all():
        raise ValueError(f"{path} has pixels that are not numbers (NaN or infinite)")
    if picture.pixels.min() == picture.pixels.max():
        raise ValueError(f"{path} shows nothing: all its pixels are {picture.pixels.min():g}")
    return picture


def _read_image(path: Path) -> Picture:
    """A PNG, JPEG or TIFF file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata that nobody asked for
            with Image.open(path, formats=PILLOW_FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise ValueError(f"{path} is too large: {image.width} x {image.height} pixels")
                frames = int(getattr(image, "n_frames", 1))
                if frames > 1:
                    raise ValueError(f"{path} holds {frames} images; give one at a time")
                image.load()
                is_float = image.mode == "F"
                pixels = _gray(np.asarray(_plain(image)), path)
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is no PNG, JPEG, TIFF or DICOM image") from error
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot read the image {path}: {error}") from error
    return Picture(pixels, is_float=is_float)


def _plain(image: Image.Image) -> Image.Image:
    """The image in gray or RGB; transparency is no part of an X-ray."""
    if image.mode in ("P", "PA", "RGBA", "CMYK", "YCbCr"):
        return image.convert("RGB")
    return image.convert("L") if image.mode in ("1", "LA", "La") else image


def _gray(array: Shaped[np.ndarray, "..."], path: Path) -> Float32[np.ndarray, "row col"]:
    """One channel; three only where they say the same."""
    if array.ndim == 3:
        spread = array.max(axis=-1).astype(np.int64) - array.min(axis=-1).astype(np.int64)
        if spread.max() > COLOR_TOLERANCE:
            raise ValueError(f"{path} is a color image; an X-ray has one gray channel")
        array = array.mean(axis=-1)
    return array.astype(np.float32)


def _is_dicom(path: Path) -> bool:
    """By its mark after the preamble, or by its name."""
    with path.open("rb") as file:
        head = file.read(132)
    return head[128:] == b"DICM" or path.suffix.lower() in (".dcm", ".dicom")


def _read_dicom(path: Path) -> Picture:
    """A single DICOM image of an X-ray modality."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd values in tags that nobody asked for
            dataset = pydicom.dcmread(path)
            _refuse_other_dicom(dataset, path)
            pixels = dataset.pixel_array.astype(np.float32)
            tags, pitch = _tags(dataset)
    except ValueError as error:
        known = str(path) in str(error)
        raise error if known else ValueError(f"cannot read the image {path}: {error}") from error
    except (
        InvalidDicomError, OSError, AttributeError, KeyError, RuntimeError, NotImplementedError,
        TypeError, EOFError,
    ) as error:  # fmt: skip
        raise ValueError(f"cannot read the DICOM image {path}: {error}") from error
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        pixels = pixels.max() + pixels.min() - pixels
    return Picture(pixels, tags=tags, pixel_pitch_mm=pitch)


def _refuse_other_dicom(dataset: pydicom.Dataset, path: Path) -> None:
    """Refuse what is no single gray X-ray image."""
    modality = dataset.get("Modality", "")
    if modality not in MODALITIES:
        raise ValueError(f"{path} is no radiograph: its modality is {modality or 'missing'}")
    if "PixelData" not in dataset:
        raise ValueError(f"{path} is a DICOM file without an image")
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        frames = dataset.NumberOfFrames
        raise ValueError(f"{path} holds {frames} images; give one at a time")
    interpretation = dataset.get("PhotometricInterpretation", "")
    if interpretation not in ("MONOCHROME1", "MONOCHROME2"):
        raise ValueError(
            f"{path} is a color image ({interpretation}); an X-ray has one gray channel"
        )


def _tags(dataset: pydicom.Dataset) -> tuple[dict[str, float], tuple[float, float] | None]:
    """Angles, distances and pixel pitch in the header."""
    tags = {}
    position = VIEW_POSITION_DEG.get(str(dataset.get("ViewPosition", "")).upper())
    if position is not None:
        tags["primary_angle_deg"] = position
    names = {
        "primary_angle_deg": "PositionerPrimaryAngle",
        "secondary_angle_deg": "PositionerSecondaryAngle",
        "sdd_mm": "DistanceSourceToDetector",
    }
    if dataset.get("Modality") == "XA":  # elsewhere the tag ends at the patient's skin
        names["sod_mm"] = "DistanceSourceToPatient"
    for name, keyword in names.items():
        value = dataset.get(keyword)
        if value is not None and math.isfinite(float(value)):
            tags[name] = float(value)
    pitch = dataset.get("ImagerPixelSpacing")
    if pitch is None or len(pitch) != 2 or min(pitch) <= 0:
        return tags, None
    return tags, (float(pitch[0]), float(pitch[1]))
