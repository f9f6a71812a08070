"""The voxel values of an image file, all of them or an error.

A format's reader says what the header promises; here the promise is checked before memory
is taken and after the last byte. Common libraries give back half a compressed file without
a word, or with zeros for the rest.
"""

import gzip
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float64, Shaped

MAX_VOXELS = 2**31
"""More than any CT (a whole body at 0.5 mm has 2^30); larger counts come from broken headers."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageHeader:
    """What a header says about the values and where they lie."""

    shape: tuple[int, int, int]
    """Number of voxels along the file's (z, y, x), x fastest."""

    dtype: np.dtype[np.generic]
    """Number type in the file, byte order included."""

    voxel_to_patient: Float64[np.ndarray, "4 4"]
    """Voxel (x, y, z) index to LPS mm."""

    data_path: Path
    """File that holds the values; the header's own or one beside it."""

    offset: int
    """Bytes before the values; in a NIfTI counted after decompression."""

    encoding: Literal["raw", "gzip", "zlib", "whole file gzip"] = "raw"
    """How the values are packed, from `offset` on or from the start of the file."""

    slope: float = 1.0
    intercept: float = 0.0


def read_values(header: ImageHeader, path: Path) -> Shaped[np.ndarray, "depth height width"]:
    """The values a header promises, scaled, in the file's own axis order.

    Raises:
        ValueError: If they are fewer than promised, damaged, or too many for this machine.
    """
    check_size(header.shape, header.dtype.itemsize, path)
    values = np.empty(header.shape, header.dtype)
    _fill(values, header, path)
    if (header.slope, header.intercept) == (1.0, 0.0):
        return values
    scaled = values.astype(np.float32)
    scaled *= header.slope
    scaled += header.intercept
    return scaled


def check_size(shape: tuple[int, ...], bytes_per_voxel: int, path: Path) -> None:
    """Refuse a volume that is flat, or larger than any CT or than this machine's memory.

    Raises:
        ValueError: With the count found.
    """
    size = " x ".join(str(count) for count in shape[::-1])
    if min(shape) < 2:
        raise ValueError(f"{path}: {size} voxels are a 2-D image, not a volume")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    needed = prod(shape) * (bytes_per_voxel + 4)  # as stored and as float32
    if prod(shape) > MAX_VOXELS or needed > memory:
        raise ValueError(
            f"{path}: {size} voxels need {needed / 2**30:.1f} GiB, too much for this program or "
            f"this machine ({memory / 2**30:.1f} GiB); is the header damaged? If not, crop it"
        )


def numbers(text: str, count: int, what: str) -> list[float]:
    """The `count` finite numbers of a header's field.

    Raises:
        ValueError: If there are more, fewer, or none.
    """
    try:
        found = [float(word) for word in text.split()]
    except ValueError:
        found = []
    if len(found) != count or not np.isfinite(found).all():
        raise ValueError(f"{what} is missing or damaged: {text[:60]!r} in the header")
    return found


@contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """Turn what broken compression raises into one clear line."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: truncated or corrupt ({error}); copy it again") from error


def _fill(values: np.ndarray, header: ImageHeader, path: Path) -> None:
    """Read exactly as many bytes as `values` has, and to the end of a compressed stream."""
    buffer = values.reshape(-1).view(np.uint8).data
    with damage_told(path), open(header.data_path, "rb") as file:
        stream = _decoded(file, header)
        found = 0
        while found < len(buffer) and (count := stream.readinto(buffer[found : found + 2**24])):
            found += count
        if found < len(buffer):
            raise ValueError(
                f"{path}: truncated: {found} of {len(buffer)} bytes of voxel values are there; "
                "copy it again"
            )
        if header.encoding != "raw":
            while stream.read(2**20):  # checksums stand at the end
                pass


def _decoded(file: io.BufferedIOBase, header: ImageHeader) -> io.BufferedIOBase:
    """The file as a stream of values."""
    if header.encoding == "whole file gzip":
        stream = gzip.GzipFile(fileobj=file)
        stream.read(header.offset)
        return stream
    file.seek(header.offset)
    if header.encoding == "gzip":
        return gzip.GzipFile(fileobj=file)
    if header.encoding == "zlib":
        return io.BytesIO(_inflated(file.read(), prod(header.shape) * header.dtype.itemsize))
    return file


def _inflated(packed: bytes, num_bytes: int) -> bytes:
    """The first `num_bytes` of a zlib stream; its checksum is tested when it ends there."""
    stream = zlib.decompressobj()
    values = stream.decompress(packed, num_bytes)
    if len(values) == num_bytes:
        more = stream.decompress(stream.unconsumed_tail, 1)
        if more or not stream.eof:
            raise zlib.error("the values do not end where the header says")
    return values
