"""Files of X-ray pictures: pixels, and what a header says about the geometry.

Reads PNG, JPEG, TIFF and single DICOM images into one form, bone bright. What the
pixels mean for a reconstruction is decided in `radiograph.py`.
"""

import struct
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Shaped
from PIL import Image, ImageOps, UnidentifiedImageError

from fewview.xray.dicom_header import Header
from fewview.xray.dicom_picture import is_dicom, read_dicom

MOST_PIXELS = 100_000_000  # a radiograph has at most about 20 million
COLOR_TOLERANCE = 2  # gray stored as RGB may differ by rounding, as in JPEG
PILLOW_FORMATS = ("PNG", "JPEG", "TIFF")


@dataclass(frozen=True, eq=False)
class Picture:
    """One X-ray picture as it lies in its file."""

    pixels: Float32[np.ndarray, "row col"]
    """Values, bone bright."""

    header: Header = field(default_factory=Header)
    """What the file says about how it was taken; only DICOM says anything."""

    is_float: bool = False
    """Whether the file holds floating-point numbers, which are line integrals."""


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
    picture = Picture(*read_dicom(path)) if is_dicom(path) else _read_image(path)
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
            # By its name Pillow would map a TIFF into memory, and garble one that lies on its side.
            with path.open("rb") as file, Image.open(file, formats=PILLOW_FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise ValueError(f"{path} is too large: {image.width} x {image.height} pixels")
                frames = int(getattr(image, "n_frames", 1))
                if frames > 1:
                    raise ValueError(f"{path} holds {frames} images; give one at a time")
                image.load()
                is_float = image.mode == "F"
                pixels = _gray(np.asarray(_plain(_upright(image))), path)
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is no PNG, JPEG, TIFF or DICOM image") from error
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot read the image {path}: {error}") from error
    return Picture(pixels, is_float=is_float)


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says; metadata that are damaged say nothing."""
    try:
        return ImageOps.exif_transpose(image)
    except (SyntaxError, struct.error):
        return image


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
