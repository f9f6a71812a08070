"""What known collections look like: which files are their scans, and whose they are.

- `folder`: CT files and DICOM folders anywhere.
- `lidc-idri`: as The Cancer Imaging Archive hands LIDC-IDRI out,
  `LIDC-IDRI-0001/<study>/<series>/*.dcm`. Some patients have two CT scans, and radiographs
  lie beside CT series. A case is called `LIDC-IDRI-0001.<series>`.
- `x2ct`: `<case>/ct_xray_data.h5` of the X2CT line; the case's name begins with that of
  LIDC-IDRI's patient.
- `ctspine1k`: NIfTI files in a folder for each sub-collection, masks `*_seg.nii.gz` beside
  them or in `labels`; the name is the patient's.

Only names are looked at, and one header of a DICOM folder.
"""

import re
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import CTImageStorage

from fewview.data.splits import patient_of

CT_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
X2CT_FILE = "ct_xray_data.h5"
WANTED = {
    "folder": f"{', '.join(CT_SUFFIXES)} and DICOM folders",
    "lidc-idri": "DICOM folders below LIDC-IDRI-nnnn",
    "x2ct": f"{X2CT_FILE} in a folder for each case",
    "ctspine1k": ".nii.gz and .nii",
}
"""What a layout looks for, in words."""

LAYOUTS = tuple(WANTED)

_DICOM_SUFFIXES = (".dcm", ".ima")
_NUM_PROBED = 16  # files looked into before a folder counts as one without DICOM
_LABELS = re.compile(r"(^|[-_.])(labels?|masks?|seg|segmentations?)$", re.IGNORECASE)
_LABELS_FOLDER = re.compile(r"(labels?|masks?|segmentations?)(tr|ts)?", re.IGNORECASE)
_OTHER = "file of another layout"
_DAMAGE = (
    InvalidDicomError, EOFError, OSError, ValueError, RuntimeError, AttributeError, KeyError,
    TypeError, NotImplementedError, struct.error,
)  # fmt: skip


def why_left_out(path: Path, layout: str) -> str:
    """What something is that is no scan of a layout; empty if it is one."""
    match layout:
        case "lidc-idri":
            return _why_no_lidc_scan(path)
        case "x2ct":
            return "" if path.name.lower() == X2CT_FILE else _OTHER
        case "ctspine1k" if not path.name.lower().endswith((".nii.gz", ".nii")):
            return _OTHER
    if path.is_dir():
        return ""
    if path.name.lower() == X2CT_FILE:
        return "file of the X2CT line, for --layout x2ct"
    if not path.name.lower().endswith(CT_SUFFIXES):
        return "file without a CT's suffix"
    return "label map, by its name" if _is_named_label_map(path) else ""


def name_words(path: Path, layout: str) -> list[str]:
    """Words that name a scan; the last alone where it is the only one, else with more of them."""
    if layout == "x2ct":
        return list(path.parts[1:-1])
    if layout == "lidc-idri":
        patient = patient_of(path.as_posix())
        inner = path.parts[path.parts.index(patient) + 1 :]
        return [*inner[:-1], ".".join((patient, *inner[-1:]))]
    words = [*path.parts[1:-1], stem(path)]
    if path.is_file() and words[-1].lower() == "ct" and len(words) > 1:
        words.pop()
    return words


def patient_of_scan(path: Path, layout: str) -> str:
    """Whose scan it is, by the names that a layout gives."""
    if layout == "lidc-idri":
        return patient_of(path.as_posix())
    return patient_of(path.parent.name if layout == "x2ct" else stem(path))


def collection_of(path: Path, source: Path, layout: str) -> str:
    """The collection that a scan below a source belongs to."""
    match layout:
        case "lidc-idri":
            return "LIDC-IDRI"
        case "x2ct":
            return "X2CT"
        case "ctspine1k":
            return "CTSpine1K" + (f"/{path.parent.name}" if path.parent != source else "")
    return source.parent.name if source.is_file() else source.name


def stem(path: Path) -> str:
    """The name without a CT suffix."""
    for suffix in CT_SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.name


def dicom_file(files: Sequence[Path]) -> Path | None:
    """A DICOM file among those of a folder: by suffix, else by the mark behind the preamble."""
    named = next((file for file in files if file.suffix.lower() in _DICOM_SUFFIXES), None)
    if named is not None:
        return named
    unnamed = [f for f in files if not f.suffix or f.suffix[1:].isdigit()]  # 1.2.840.113619.2
    return next((file for file in unnamed[:_NUM_PROBED] if _has_dicom_mark(file)), None)


def _why_no_lidc_scan(path: Path) -> str:
    """What a folder is that is no CT series of LIDC-IDRI."""
    if not path.is_dir():
        return _OTHER
    if patient_of(path.as_posix()) not in path.parts:
        return "DICOM folder outside LIDC-IDRI-nnnn"
    try:
        file = dicom_file(sorted(file for file in path.iterdir() if file.is_file()))
        if file is None:
            return ""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind = read_file_meta_info(file).MediaStorageSOPClassUID
    except _DAMAGE:
        return ""  # reading it will fail and be reported
    return "" if kind == CTImageStorage else f"series of {kind.name}"


def _is_named_label_map(path: Path) -> bool:
    """Whether a file or one of the two folders above it is called like label maps are."""
    folders = (path.parent.name, path.parent.parent.name)
    return bool(_LABELS.search(stem(path))) or any(map(_LABELS_FOLDER.fullmatch, folders))


def _has_dicom_mark(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False
