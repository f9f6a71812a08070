"""What the words on a command line mean, checked before long work starts.

Raises `typer.BadParameter` (exit 2) for wrong usage and `ValueError` or `OSError` (exit 1) for
what the machine or a file refuses.
"""

import errno
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fewview.xray.geometry import ViewGeometry
    from fewview.xray.views import Views

VOLUME_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")
"""What a volume can be written as; a trailing `/` makes a DICOM series."""

Out = Annotated[Path, typer.Option("--out", help="Folder to write.")]
Force = Annotated[bool, typer.Option("--force", help="Replace a folder that is not empty.")]
Device = Annotated[str, typer.Option("--device", help="Where to compute: cpu, cuda, cuda:1, ...")]
Angles = Annotated[
    str | None, typer.Option("--angles-deg", help="Primary angles such as 0,90; 0 is PA.")
]
Geometry = Annotated[
    str | None,
    typer.Option("--geometry", help="chest, x2ct, parallel or a file with one view's geometry."),
]
KeepCouch = Annotated[bool, typer.Option("--keep-couch", help="Leave the patient couch in.")]

MAX_VIEWS = 16

STANDARD_ANGLES_DEG = (0.0, 90.0)
DEFAULT_GEOMETRY = "chest"


def numbers(text: str, count: int | None = None) -> tuple[float, ...]:
    """The numbers of a comma-separated list, `count` of them if that is given."""
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a comma-separated list of numbers") from None
    if count is not None and len(found) != count:
        raise typer.BadParameter(f"need {count} numbers, got {text!r}")
    return found


def check_volume_output(path: str, option: str = "--out") -> None:
    """Refuse a volume's name that says no format or cannot be written."""
    if not path.endswith("/") and _suffix(path) is None:
        raise typer.BadParameter(
            f"{option} {path}: a CT is written as {', '.join(VOLUME_SUFFIXES)}, "
            "or as a DICOM series if the name ends in /"
        )
    if not path.endswith("/") and Path(path).is_dir():
        raise typer.BadParameter(f"{option} {path} is a folder")
    check_writable(Path(path))


def beside(path: str, word: str, suffix: str | None = None) -> str:
    """A name beside a volume's: `ct.nii.gz` and `sample` make `ct_sample.nii.gz`.

    With a suffix of its own the word goes before it: `ct.nii.gz`, `run`, `.json` make
    `ct.run.json`.
    """
    ending = "/" if path.endswith("/") else _suffix(path) or ""
    stem = path.rstrip("/") if ending == "/" else path[: len(path) - len(ending)]
    return f"{stem}_{word}{ending}" if suffix is None else f"{stem}.{word}{suffix}"


def _suffix(path: str) -> str | None:
    """The volume suffix of a name, or None."""
    return next((one for one in VOLUME_SUFFIXES if path.lower().endswith(one)), None)


def check_folder(path: Path, *, force: bool) -> None:
    """Refuse a folder that is in use or cannot be written."""
    if path.is_file():
        raise typer.BadParameter(f"{path} is a file, a folder is needed")
    if path.is_dir() and any(path.iterdir()) and not force:
        raise ValueError(f"{path} is not empty; --force replaces it")
    check_writable(path)


def check_writable(path: Path) -> None:
    """Refuse a place where nothing can be written."""
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def check_device(device: str) -> None:
    """Refuse a device that this machine does not have, and name those it has."""
    if device == "cpu":
        return
    import torch

    there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        there.append("mps")
    if device not in there and not (device == "cuda" and len(there) > 1):
        raise typer.BadParameter(f"no device {device!r} here; there is {', '.join(there)}")


def geometries(
    name: str | None, angles_deg: Sequence[float] | None, size: int | None
) -> tuple["ViewGeometry", ...]:
    """View geometries by preset name or file, one per angle.

    Args:
        name: A preset, or a file with one view's geometry; the chest preset by default.
        angles_deg: Primary angles; by default the file's own, and 0 and 90 for a preset.
        size: Detector pixels per side; the detector keeps its extent.
    """
    from fewview.xray.geometry import PRESET_NAMES, preset
    from fewview.xray.views import read_geometry

    name = name or DEFAULT_GEOMETRY
    if name in PRESET_NAMES:
        angles = STANDARD_ANGLES_DEG if angles_deg is None else angles_deg
        return tuple(preset(name, angle_deg=angle, size=size) for angle in angles)
    if not Path(name).exists():
        raise typer.BadParameter(
            f"--geometry {name} is neither a file nor one of {', '.join(PRESET_NAMES)}"
        )
    one = read_geometry(Path(name))
    if size is not None:
        pitch_v, pitch_u = one.pixel_pitch_mm
        pitch = (pitch_v * one.num_rows / size, pitch_u * one.num_cols / size)
        one = replace(one, num_rows=size, num_cols=size, pixel_pitch_mm=pitch)
    if angles_deg is None:
        return (one,)
    return tuple(replace(one, primary_angle_deg=angle) for angle in angles_deg)


def read_inputs(
    inputs: Sequence[Path],
    angles_deg: str | None,
    geometry: str | None,
    *,
    strict: bool,
    keep_markings: bool = False,
) -> "Views":
    """Views from a views folder, or from radiographs with their angles."""
    from fewview.xray.radiograph import read_radiographs
    from fewview.xray.views import read_views

    if len(inputs) == 1 and inputs[0].is_dir():
        if angles_deg is not None or geometry is not None:
            raise typer.BadParameter(
                "a views folder carries its geometry; --angles-deg and --geometry are for images"
            )
        return read_views(inputs[0])
    folders = [str(path) for path in inputs if path.is_dir()]
    if folders:
        raise typer.BadParameter(f"give one views folder or images, not {', '.join(folders)}")
    angles = None if angles_deg is None else numbers(angles_deg)
    one = None if geometry is None else geometries(geometry, None, None)[0]
    return read_radiographs(inputs, angles, one, strict=strict, keep_markings=keep_markings)
