"""X-ray views with their geometry: computed from a volume, read, written and shown.

A views folder holds `views.json` (the geometry of every view) and one float32 TIFF per
view. `docs/conventions.md` has the form; this module is the only place that knows it.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64
from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional

from fewview.data.files import replacing_file, replacing_folder
from fewview.data.volume import Volume
from fewview.xray.attenuation import hu_to_attenuation
from fewview.xray.detector import display_style
from fewview.xray.geometry import Cameras, ViewGeometry, cameras
from fewview.xray.geometry_record import (
    VIEW_KEYS,
    check_marks,
    from_record,
    read_record,
    to_record,
)
from fewview.xray.projector import project
from fewview.xray.records import numbers, read_object, refuse_unknown

FORMAT = "fewview-views/1"
VIEWS_FILE = "views.json"
FOLDER_KEYS = {"format", "isocenter_mm", "views"}

LABEL_HEIGHT = 20
TILE_PIXELS = 384  # larger views are shrunk to this in a preview, smaller ones stay
MOST_COLUMNS = 4


@dataclass(frozen=True, eq=False)
class Views:
    """X-ray images of one patient and where each was taken."""

    images: Float32[Tensor, "view 1 row col"]
    """Line integrals where calibrated, else display values; as seen from the detector."""

    geometries: tuple[ViewGeometry, ...]
    """One per view."""

    isocenter_mm: tuple[float, float, float]
    """The point (LPS) all views turn about."""

    calibrated: tuple[bool, ...]
    """Per view: whether its values are line integrals."""

    source: tuple[str, ...]
    """Per view: `drr` or `radiograph`."""

    geometry_source: tuple[str, ...]
    """Per view: `measured` or `assumed`."""

    def __post_init__(self) -> None:
        """Refuse images that do not fit their geometry."""
        if not len(self.images):
            raise ValueError("no views: at least one image is needed")
        parts = (self.geometries, self.calibrated, self.source, self.geometry_source)
        if {len(part) for part in parts} != {len(self.images)}:
            counts = ", ".join(str(len(part)) for part in parts)
            raise ValueError(f"{len(self.images)} images, but geometries and marks for {counts}")
        for index, geometry in enumerate(self.geometries):
            size = (geometry.num_rows, geometry.num_cols)
            if tuple(self.images.shape[2:]) != size:
                found = tuple(self.images.shape[2:])
                raise ValueError(f"view {index}: image of {found} pixels on a detector of {size}")
        if not all(math.isfinite(value) for value in self.isocenter_mm):
            raise ValueError(f"isocenter_mm must be finite, got {self.isocenter_mm}")

    @property
    def cameras(self) -> Cameras:
        """The cameras of the views, leading shape [view]."""
        return cameras(self.geometries, self.isocenter_mm)


def drr(
    volume: Volume,
    geometries: Sequence[ViewGeometry],
    *,
    isocenter_mm: Sequence[float] | Float64[np.ndarray, "3"] | None = None,
) -> Views:
    """Noise-free X-rays of a CT volume: line integrals of its attenuation.

    HU are not clipped above; at and below -1000 HU there is no attenuation.

    Args:
        volume: The CT; couch and all, if it is in there.
        geometries: One per view.
        isocenter_mm: The point (LPS) all views turn about; the center of the volume's
            voxel extent by default.
    """
    center = volume.center_mm if isocenter_mm is None else isocenter_mm
    isocenter = (float(center[0]), float(center[1]), float(center[2]))
    mu = hu_to_attenuation(torch.from_numpy(np.array(volume.hu, dtype=np.float32)))
    matrix = torch.from_numpy(np.array(volume.voxel_to_patient, dtype=np.float64))
    with torch.no_grad():
        images = project(mu[None, None], matrix[None], cameras(geometries, isocenter).view(1, -1))
    num_views = len(geometries)
    return Views(
        images=images[0][:, None],
        geometries=tuple(geometries),
        isocenter_mm=isocenter,
        calibrated=(True,) * num_views,
        source=("drr",) * num_views,
        geometry_source=("measured",) * num_views,
    )


def write_views(views: Views, folder: str | Path, *, force: bool = False) -> None:
    """Write a views folder, whole or not at all.

    Args:
        views: What to write.
        folder: The folder; made if it is missing.
        force: Replace a folder that is not empty.

    Raises:
        ValueError: If the folder is not empty and `force` is not set.
        OSError: If it cannot be written.
    """
    with replacing_folder(folder, force=force) as temporary:
        entries = []
        for index in range(len(views.images)):
            name = f"view_{index:02d}.tiff"
            pixels = views.images[index, 0].detach().cpu().numpy().astype(np.float32)
            Image.fromarray(pixels).save(temporary / name)
            entries.append(_entry(views, index, name))
        record = {
            "format": FORMAT,
            "isocenter_mm": list(views.isocenter_mm),
            "views": entries,
        }
        (temporary / VIEWS_FILE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _entry(views: Views, index: int, name: str) -> dict[str, Any]:
    """One view of `views.json`."""
    return {
        "image": name,
        "calibrated": views.calibrated[index],
        **to_record(views.geometries[index]),
        "source": views.source[index],
        "geometry": views.geometry_source[index],
    }


def read_views(folder: str | Path) -> Views:
    """Read a views folder.

    Raises:
        ValueError: If the folder has no `views.json`, a view has no geometry, or an image
            is missing, broken, not finite or of another size than its detector.
    """
    folder = Path(folder)
    path = folder / VIEWS_FILE
    if not path.is_file():
        raise ValueError(
            f"{folder} has no {VIEWS_FILE}, so its images have no geometry; "
            "give the images themselves with their angles"
        )
    record = read_object(path)
    if record.get("format") != FORMAT:
        raise ValueError(f"{path}: format is {record.get('format')!r}, expected {FORMAT!r}")
    refuse_unknown(record, FOLDER_KEYS, str(path))
    entries = record.get("views")
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path}: 'views' must be a list with at least one view")
    isocenter = numbers(record, "isocenter_mm", 3, str(path))
    loaded = [_read_view(folder, entry, index) for index, entry in enumerate(entries)]
    sizes = {image.shape for image, _ in loaded}
    if len(sizes) > 1:
        raise ValueError(f"{path}: all images need one size, got {sorted(sizes)}")
    return Views(
        images=torch.from_numpy(np.stack([image for image, _ in loaded]))[:, None],
        geometries=tuple(geometry for _, geometry in loaded),
        isocenter_mm=(isocenter[0], isocenter[1], isocenter[2]),
        calibrated=tuple(bool(entry["calibrated"]) for entry in entries),
        source=tuple(entry.get("source", "drr") for entry in entries),
        geometry_source=tuple(entry.get("geometry", "measured") for entry in entries),
    )


def _read_view(folder: Path, entry: object, index: int) -> tuple[np.ndarray, ViewGeometry]:
    """Image and geometry of one view of `views.json`."""
    where = f"{folder / VIEWS_FILE}: view {index}"
    if not isinstance(entry, dict):
        raise ValueError(f"{where} must be an object, got {type(entry).__name__}")
    refuse_unknown(entry, VIEW_KEYS, where)
    name = entry.get("image")
    if not isinstance(name, str) or not name or Path(name).name != name:
        raise ValueError(f"{where}: 'image' must name a file in the folder, got {name!r}")
    check_marks({"calibrated": None} | entry, where)
    image = read_float_tiff(folder / name)
    geometry = from_record(entry, where, size=(image.shape[0], image.shape[1]))
    if image.shape != (geometry.num_rows, geometry.num_cols):
        found = f"{image.shape[0]} x {image.shape[1]}"
        raise ValueError(
            f"{where}: {name} has {found} pixels, its detector "
            f"{geometry.num_rows} x {geometry.num_cols}"
        )
    return image, geometry


def read_float_tiff(path: Path) -> Float32[np.ndarray, "row col"]:
    """Read one float32 TIFF image.

    Raises:
        ValueError: If it is missing, broken, not a float image or not finite.
    """
    if not path.is_file():
        raise ValueError(f"there is no image {path}")
    try:
        with Image.open(path) as image:
            if image.mode != "F":
                raise ValueError(f"{path} is not a float32 TIFF (pixels are {image.mode})")
            pixels = np.array(image, dtype=np.float32)
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot read the image {path}: {error}") from error
    if not np.isfinite(pixels).all():
        raise ValueError(f"{path} has pixels that are not numbers (NaN or infinite)")
    return pixels


def read_geometry(path: str | Path) -> ViewGeometry:
    """Read the geometry of one view: a view of `views.json` without its image.

    Without `num_rows` and `num_cols` the detector is 430 mm high and wide.

    Raises:
        ValueError: If the file is not such a view, or calls its geometry assumed.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no geometry file {path}")
    geometry, record = read_record(path)
    if record.get("geometry") == "assumed":
        # Nobody could tell later; `read_radiographs` carries the mark of a file beside a picture.
        raise ValueError(
            f"{path}: its 'geometry' is 'assumed', but a given geometry counts as measured; "
            "leave the key out if that is meant"
        )
    return geometry


def preview(views: Views, path: str | Path) -> None:
    """Write a PNG of all views as on a light box, bone bright, each with its angles.

    Args:
        views: What to show; every view has a window of its own.
        path: The PNG file.
    """
    tiles = [_tile(views, index) for index in range(len(views.images))]
    width = max(tile.width for tile in tiles)
    height = max(tile.height for tile in tiles)
    num_columns = min(MOST_COLUMNS, len(tiles))
    num_rows = math.ceil(len(tiles) / num_columns)
    sheet = Image.new("L", (num_columns * width, num_rows * height))
    for index, tile in enumerate(tiles):
        row, column = divmod(index, num_columns)
        sheet.paste(tile, (column * width, row * height))
    with replacing_file(path) as temporary:
        sheet.save(temporary, format="PNG")


def _tile(views: Views, index: int) -> Image.Image:
    """One view with square pixels and a label above it."""
    geometry = views.geometries[index]
    pitch_v, pitch_u = geometry.pixel_pitch_mm
    high, wide = geometry.num_rows * pitch_v, geometry.num_cols * pitch_u
    scale = min(TILE_PIXELS, max(geometry.num_rows, geometry.num_cols)) / max(high, wide)
    size = (max(1, round(scale * high)), max(1, round(scale * wide)))
    shrunk = functional.adaptive_avg_pool2d(views.images[index].detach().cpu(), size)
    shown = (255.0 * display_style(shrunk[0])).round().to(torch.uint8).numpy()
    tile = Image.new("L", (size[1], size[0] + LABEL_HEIGHT))
    tile.paste(Image.fromarray(shown), (0, LABEL_HEIGHT))
    font = ImageFont.load_default(size=12)
    ImageDraw.Draw(tile).text((4, 3), _label(geometry), fill=255, font=font)
    return tile


def _label(geometry: ViewGeometry) -> str:
    """Primary angle, and secondary angle where there is one."""
    label = f"{geometry.primary_angle_deg:g}°"
    if geometry.secondary_angle_deg:
        label += f" / {geometry.secondary_angle_deg:+g}°"
    return label
