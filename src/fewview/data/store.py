"""The prepared store: whole scans on isotropic voxels, ready to be projected.

A folder with `index.json` and, beside it, the Zarr 3 group `cases` of one int16 array each. An
array is the body's whole cross-section over the whole scanned length, not only what a model
sees: X-rays see all of it. Its voxels are laid out around the center of the scan, so that
the model grid (`size` voxels over `extent_mm` about that center) is a block of them, cut or
padded but never interpolated again.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from jaxtyping import Bool, Float64, Int16
from zarr.codecs import ZstdCodec

from fewview.data.files import replacing_file, replacing_folder
from fewview.data.index import FORMAT, OtherVersionError, index_text, parse_index
from fewview.data.splits import SPLITS, check_disjoint, split_hash
from fewview.data.volume import Grid, Volume
from fewview.data.x2ct import OFFSETS_HU

AIR_HU = -1000.0
_INDEX = "index.json"
_ARRAYS = "cases"
_CHUNK = 128  # voxels along an edge: 4 MB


@dataclass(frozen=True, kw_only=True)
class StoreSettings:
    """What all cases of a store have in common."""

    size: int = 128
    """Voxels along each edge of the model grid."""

    extent_mm: float = 400.0
    """Edge length of the model grid; voxels are `extent_mm / size` wide."""

    keep_couch: bool = False
    """Whether the table is still there."""

    layout: str = "folder"
    """How the scans' files were laid out; see `layouts`."""

    stored_offset_hu: int | None = None
    """What was subtracted from the stored values of the `x2ct` layout, 1000 or 1024."""

    def __post_init__(self) -> None:
        """Refuse a grid that cannot exist, and an offset that is missing or has no meaning."""
        if self.size < 2 or self.size % 2:
            raise ValueError(f"size must be even, so that it has a middle, got {self.size}")
        if not 0.0 < self.extent_mm < np.inf:
            raise ValueError(f"extent_mm must be positive, got {self.extent_mm}")
        allowed = OFFSETS_HU if self.layout == "x2ct" else (None,)
        if self.stored_offset_hu not in allowed:
            raise ValueError(
                f"stored_offset_hu must be {' or '.join(map(str, allowed))} in the layout "
                f"{self.layout}, got {self.stored_offset_hu}"
            )

    @property
    def spacing_mm(self) -> float:
        """Width of a voxel in mm."""
        return self.extent_mm / self.size


@dataclass(frozen=True, eq=False)
class CaseInfo:
    """What the index knows about a case."""

    id: str
    patient: str
    split: str
    """`train`, `val` or `test`."""

    source: str
    """Name of the scan below the source it was read from; never a path of a machine."""

    checksum: str
    """SHA-256 of the bytes of the scan's files."""

    shape: tuple[int, int, int]
    """Stored voxels along (depth, height, width)."""

    voxel_to_patient: Float64[np.ndarray, "4 4"]
    """Stored voxel (x, y, z) index to LPS mm."""

    outside_share: float
    """Share of the body's mass (HU above air) that lies outside the model grid."""

    collection: str = ""
    """What the scan belongs to, such as `LIDC-IDRI`; empty in stores of before it was kept."""

    license: str = ""
    """As the scan's files or whoever prepared it say; empty where nobody does."""


@dataclass(frozen=True, eq=False)
class Store:
    """A prepared store, open for reading. Cheap to copy into worker processes."""

    path: Path
    settings: StoreSettings
    cases: tuple[CaseInfo, ...]

    @property
    def size(self) -> int:
        """Voxels along each edge of the model grid."""
        return self.settings.size

    @property
    def extent_mm(self) -> float:
        """Edge length of the model grid in mm."""
        return self.settings.extent_mm

    @property
    def split_hash(self) -> str:
        """A name for who is in which split; equal for equal assignments. See `splits`."""
        return split_hash((case.patient, case.split) for case in self.cases)

    def of_split(self, split: str) -> list[CaseInfo]:
        """The cases of one split, in the order of their names.

        Raises:
            ValueError: If there is no such split.
        """
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        return [case for case in self.cases if case.split == split]

    def read(self, case_id: str) -> Volume:
        """The whole scan of a case.

        Raises:
            ValueError: If the store has no such case, or its voxels are missing or damaged.
        """
        case = next((case for case in self.cases if case.id == case_id), None)
        if case is None:
            raise ValueError(f"{self.path} has no case {case_id!r}")
        return read_case(self.path, case)


def open_store(path: str | Path, *, check_splits: bool = True) -> Store:
    """Open a prepared store.

    Args:
        path: The store's folder.
        check_splits: Refuse splits that were changed by hand or that share a patient. Whoever
            sets all splits anew need not.

    Raises:
        ValueError: If there is none, its index is damaged or of another version, its splits
            were changed by hand, or a patient is in two of them.
    """
    path = Path(path)
    try:
        text = (path / _INDEX).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{path} is no prepared store; fewview prepare makes one") from None
    try:
        settings, cases, recorded = parse_index(text)
        known = tuple(_case_from_json(case) for case in cases)
        store = Store(path, StoreSettings(**settings), known)
    except OtherVersionError as error:
        raise ValueError(f"{path} is a {error}, this version reads {FORMAT!r}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path / _INDEX} is damaged; prepare the store again") from None
    if not check_splits:
        return store
    check_disjoint((case.patient, case.split) for case in store.cases)
    if recorded not in (None, store.split_hash):
        raise ValueError(
            f"the splits in {path / _INDEX} were changed by hand: they are not those of its "
            "split_sha256; fewview prepare --split FILE sets them"
        )
    return store


def read_case(path: Path, case: CaseInfo) -> Volume:
    """The voxels of a case in the store at `path`.

    Raises:
        ValueError: If they are missing or damaged.
    """
    try:
        array = zarr.open_array(path / _ARRAYS / case.id, mode="r")
        whole = array.shape == case.shape and array.nchunks_initialized == array.nchunks
        voxels = np.asarray(array[:], dtype=np.float32) if whole else None
    except (OSError, ValueError, RuntimeError, KeyError, TypeError):
        voxels = None
    if voxels is None:
        raise ValueError(f"case {case.id} of {path} is missing or damaged; prepare the store again")
    return Volume(voxels, case.voxel_to_patient)


def is_store(path: Path) -> bool:
    """Whether a folder is a store, be it damaged or of another version."""
    return (path / _INDEX).is_file()


def write_index(path: Path, settings: StoreSettings, cases: Sequence[CaseInfo]) -> None:
    """Write the index, and with the first one the group, so that the folder is a store.

    Raises:
        ValueError: If a patient is in two splits.
        OSError: If the place is not writable.
    """
    check_disjoint((case.patient, case.split) for case in cases)
    in_order = sorted(cases, key=lambda case: case.id)
    text = index_text(asdict(settings), [_case_to_json(case) for case in in_order])
    with replacing_file(path / _INDEX) as temporary:
        temporary.write_text(text, encoding="utf-8")
    group = path / _ARRAYS / "zarr.json"
    if not group.is_file():
        with replacing_file(group) as temporary:
            temporary.write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}\n')


def write_case(path: Path, case_id: str, hu: Int16[np.ndarray, "depth height width"]) -> None:
    """Write the voxels of a case; they replace older ones when they are complete."""
    with replacing_folder(path / _ARRAYS / case_id, force=True) as temporary:
        array = zarr.create_array(
            temporary,
            shape=hu.shape,
            dtype="int16",
            chunks=tuple(min(count, _CHUNK) for count in hu.shape),
            compressors=ZstdCodec(level=3, checksum=True),
            dimension_names=("depth", "height", "width"),
            fill_value=int(AIR_HU),
            config={"write_empty_chunks": True},  # a chunk that is not there is one that got lost
            overwrite=True,
        )
        array[:] = hu


def remove_unlisted(path: Path, cases: Sequence[CaseInfo]) -> None:
    """Remove the voxels that the index does not name: left by a stopped run, or by `force`."""
    names = {case.id for case in cases}
    for folder in (path / _ARRAYS).iterdir():
        if folder.is_dir() and folder.name not in names:
            shutil.rmtree(folder)


def store_grid(volume: Grid | Volume, settings: StoreSettings) -> Grid:
    """Where the voxels of a stored scan lie.

    Axis aligned, laid out from the center of the scan in whole voxels to both sides: all
    voxels whose center was scanned (for an oblique scan, those of its bounding box).
    """
    half_mm = np.abs(volume.voxel_to_patient[:3, :3]) @ np.array(volume.shape[::-1]) / 2.0
    half = np.maximum(np.rint((half_mm / settings.spacing_mm).round(6)), 1.0)
    matrix = np.diag([settings.spacing_mm] * 3 + [1.0])
    matrix[:3, 3] = volume.center_mm + (0.5 - half) * settings.spacing_mm
    width, height, depth = (int(2 * count) for count in half)
    return Grid((depth, height, width), matrix)


def central_block(volume: Volume, size: int) -> Volume:
    """The model grid: `size` voxels to a side about the volume's center, air where none is.

    Raises:
        ValueError: If the center would not stay the center (odd and even counts mixed).
    """
    before = _voxels_before(volume.shape, size)
    cut, placed = _overlap(volume.shape, size)
    hu = np.full((size, size, size), AIR_HU, dtype=np.float32)
    hu[placed] = volume.hu[cut]
    matrix = volume.voxel_to_patient.copy()
    matrix[:3, 3] += matrix[:3, :3] @ np.array(before[::-1], dtype=np.float64)
    return Volume(hu, matrix)


def scanned_block(volume: Volume, size: int) -> Bool[np.ndarray, "size size size"]:
    """Which voxels of `central_block` were scanned; the others are padding."""
    _, placed = _overlap(volume.shape, size)
    inside = np.zeros((size, size, size), dtype=bool)
    inside[placed] = True
    return inside


def _voxels_before(shape: tuple[int, int, int], size: int) -> list[int]:
    """Voxels of the volume before the block along each axis; negative where it is padded."""
    if any((count - size) % 2 for count in shape):
        raise ValueError(f"a block of {size} voxels has no place in the middle of {shape}")
    return [(count - size) // 2 for count in shape]


def _overlap(shape: tuple[int, int, int], size: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The voxels a volume and its central block share, in the one and in the other."""
    cut, placed = [], []
    for count, before in zip(shape, _voxels_before(shape, size), strict=True):
        shared = min(count, size)
        cut.append(slice(max(before, 0), max(before, 0) + shared))
        placed.append(slice(max(-before, 0), max(-before, 0) + shared))
    return tuple(cut), tuple(placed)


def _case_to_json(case: CaseInfo) -> dict[str, Any]:
    return {**vars(case), "voxel_to_patient": case.voxel_to_patient.tolist()}


def _case_from_json(values: Mapping[str, Any]) -> CaseInfo:
    depth, height, width = values["shape"]
    matrix = np.array(values["voxel_to_patient"], dtype=np.float64).reshape(4, 4)
    return CaseInfo(**{**values, "shape": (depth, height, width), "voxel_to_patient": matrix})
