"""How collections of CT scans lay out their cases.

A layout only finds and names cases; it reads no image, so that a damaged scan is met where
it can be reported. The one layout so far is the plain folder.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CT_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
LAYOUTS = ("folder",)
_DICOM_SUFFIXES = (".dcm", ".ima")
_NUM_PROBED = 16  # files looked into before a folder counts as one without DICOM


@dataclass(frozen=True)
class FoundCase:
    """A scan that waits to be read."""

    id: str
    """Unique among the cases found together; fit for a folder's name."""

    path: Path
    """The file, or the folder of a DICOM series."""

    source: str
    """Where it lies as seen from the source, beginning with the source's own name."""


def find_cases(sources: Sequence[Path], layout: str = "folder") -> list[FoundCase]:
    """All scans below the sources, in the order of their names.

    In the `folder` layout each CT file and each folder with DICOM files is a case, at any
    depth. A file `ct.*` goes by the name of its folder, `labels.*` is a label map and no CT,
    hidden files and folders are left out. A case is called by its name; where several share
    one, the folders above it are put in front until they differ.

    Args:
        sources: Folders to search, or CT files.
        layout: One of `LAYOUTS`.

    Raises:
        ValueError: If the layout is unknown, or a source is missing or holds no CT.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}; known: {', '.join(LAYOUTS)}")
    found: dict[Path, str] = {}  # a scan that two sources reach is one case
    for source in sources:
        root = source.resolve()
        if not root.exists():
            raise ValueError(f"{source} does not exist")
        paths = [root] if root.is_file() else list(_scans_below(root, set()))
        if not paths or (root.is_file() and not is_ct_file(root)):
            kinds = ", ".join(CT_SUFFIXES)
            raise ValueError(f"no CT found in {source}: looked for {kinds} and DICOM folders")
        for path in paths:
            found.setdefault(path, path.relative_to(root.parent).as_posix())
    names = _unique_names(found)
    cases = [FoundCase(names[path], path, source) for path, source in found.items()]
    return sorted(cases, key=lambda case: case.id)


def is_ct_file(path: Path) -> bool:
    """Whether the name is that of a CT volume in one file (and not of a label map)."""
    return path.name.lower().endswith(CT_SUFFIXES) and _stem(path).lower() != "labels"


def source_files(path: Path) -> list[Path]:
    """The files whose bytes make a scan: itself, its detached data, or a folder's files."""
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.is_file())
    if path.suffix.lower() not in (".mhd", ".nhdr"):
        return [path]
    # A detached header names its data; the scan is the same scan only if both are.
    named = re.findall(r"(?im)^(?:ElementDataFile\s*=|data ?file:)\s*(\S.*?)\s*$", _text(path))
    return [path, *(path.parent / name for name in named if (path.parent / name).is_file())]


def _scans_below(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """CT files and DICOM folders, depth first; links are followed, but never in a circle."""
    if folder.resolve() in seen:
        return
    seen.add(folder.resolve())
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError:
        yield folder  # reading it will fail and be reported
        return
    files = [entry for entry in entries if entry.is_file()]
    if _has_dicom(files):
        yield folder
    yield from (file for file in files if is_ct_file(file))
    for entry in entries:
        if entry.is_dir():
            yield from _scans_below(entry, seen)


def _has_dicom(files: Iterable[Path]) -> bool:
    """Whether a folder holds DICOM: by suffix, else by the mark behind the preamble."""
    if any(file.suffix.lower() in _DICOM_SUFFIXES for file in files):
        return True
    unnamed = [f for f in files if not f.suffix or f.suffix[1:].isdigit()]  # 1.2.840.113619.2
    return any(_has_dicom_mark(file) for file in unnamed[:_NUM_PROBED])


def _has_dicom_mark(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _unique_names(paths: Iterable[Path]) -> dict[Path, str]:
    """The shortest names that differ; equal ones grow by the folders above them."""
    parts = {path: _name_parts(path) for path in paths}
    names: dict[Path, str] = {}
    length = 1
    while parts:
        groups: dict[str, list[Path]] = defaultdict(list)
        for path, words in parts.items():
            groups["-".join(words[-length:])].append(path)
        for name, group in groups.items():
            if len(group) == 1 and name not in names.values():
                names[group[0]] = name
                del parts[group[0]]
        length += 1
        if parts and length > max(len(words) for words in parts.values()):
            raise ValueError(f"several scans have one name: {', '.join(map(str, parts))}")
    return names


def _name_parts(path: Path) -> list[str]:
    """Folders and name of a case, each fit for a file name."""
    words = [*path.parts[1:-1], _stem(path)]
    if path.is_file() and words[-1].lower() == "ct" and len(words) > 1:
        words.pop()
    return [re.sub(r"[^\w.+-]", "_", word).lstrip(".") or "_" for word in words]


def _stem(path: Path) -> str:
    """The name without a CT suffix."""
    for suffix in CT_SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.name


def _text(path: Path) -> str:
    """The header part of a file as text."""
    with path.open("rb") as stream:
        return os.fsdecode(stream.read(65536))
