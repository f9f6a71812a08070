"""Where the cases of a collection of CT scans lie.

Scans are found and named here; no voxel is read, so that a damaged scan is met where it can
be reported. What the known collections look like is told in `layouts`.
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fewview.data import layouts
from fewview.data.layouts import CT_SUFFIXES, LAYOUTS
from fewview.data.licenses import license_of


@dataclass(frozen=True)
class FoundCase:
    """A scan that waits to be read."""

    id: str
    """Unique among the cases found together; fit for a folder's name."""

    path: Path
    """The file, or the folder of a DICOM series."""

    source: str
    """Where it lies as seen from the source, beginning with the source's own name."""

    patient: str
    """Whose scan it is, as far as the layout tells."""

    collection: str
    """What it belongs to, such as `LIDC-IDRI`; in a plain folder, the source's own name."""

    license: str = ""
    """What its files say of its license; see `licenses`."""


@dataclass(frozen=True)
class Found:
    """What lies below the sources."""

    cases: tuple[FoundCase, ...]
    """The scans, in the order of their names."""

    left_out: tuple[tuple[str, str], ...]
    """What looks like a scan and is none: where it lies, and what it is."""


def find_cases(sources: Sequence[Path], layout: str = "folder") -> Found:
    """All scans below the sources.

    In the `folder` layout each CT file and each folder with DICOM files is a case, at any
    depth. A file `ct.*` goes by the name of its folder, hidden files and folders are left out.
    A case is called by its name; where several share one, the folders above it are put in
    front until they differ. Scans that share the first folder below their source are one
    patient's, called like that folder; any other is a patient of its own. The other layouts
    know names and patients of their collection; see `layouts`.

    Args:
        sources: Folders to search, or CT files.
        layout: One of `LAYOUTS`.

    Raises:
        ValueError: If the layout is unknown, or a source is missing or holds no CT.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}; known: {', '.join(LAYOUTS)}")
    roots: dict[Path, Path] = {}  # a scan that two sources reach is one case
    left_out: dict[str, str] = {}
    for source in sources:
        root = source.resolve()
        if not root.exists():
            raise ValueError(f"{source} does not exist")
        paths = [root] if root.is_file() else list(_scans_below(root, set()))
        others = {path: why for path in paths if (why := layouts.why_left_out(path, layout))}
        if len(others) == len(paths):
            first = next(
                (f"; {len(others)} left out, the first: {kind}" for kind in others.values()), ""
            )
            raise ValueError(f"no CT found in {source}: looked for {layouts.WANTED[layout]}{first}")
        left_out |= {_below(path, root): why for path, why in others.items()}
        for path in paths:
            if path not in others:
                roots.setdefault(path, root)
    return Found(_cases(roots, layout), tuple(sorted(left_out.items())))


def source_files(path: Path) -> list[Path]:
    """The files whose bytes make a scan: itself, its detached data, or a folder's files."""
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.is_file())
    if path.suffix.lower() not in (".mhd", ".nhdr"):
        return [path]
    # A detached header names its data; the scan is the same scan only if both are.
    named = re.findall(r"(?im)^(?:ElementDataFile\s*=|data ?file:)\s*(\S.*?)\s*$", _text(path))
    return [path, *(path.parent / name for name in named if (path.parent / name).is_file())]


def _cases(roots: Mapping[Path, Path], layout: str) -> tuple[FoundCase, ...]:
    """The scans with names, patients and collections, each with the source it lies below."""
    names = _unique_names({path: layouts.name_words(path, layout) for path in roots})
    own = _folder_patients(roots, names) if layout == "folder" else {}
    cases = [
        FoundCase(
            id=names[path],
            path=path,
            source=_below(path, root),
            patient=own.get(path) or layouts.patient_of_scan(path, layout),
            collection=layouts.collection_of(path, root, layout),
            license=license_of(path, root),
        )
        for path, root in roots.items()
    ]
    return tuple(sorted(cases, key=lambda case: case.id))


def _below(path: Path, root: Path) -> str:
    """A place as seen from the folder that the source lies in: never a path of a machine."""
    return path.relative_to(root.parent).as_posix()


def _folder_patients(roots: Mapping[Path, Path], names: Mapping[Path, str]) -> dict[Path, str]:
    """Patients of a plain folder: the first folder below the source, where scans share one."""
    first = {path: _first_folder(path, root) for path, root in roots.items()}
    counts = Counter(first.values())
    return {
        path: folder.name if folder is not None and counts[folder] > 1 else names[path]
        for path, folder in first.items()
    }


def _first_folder(path: Path, root: Path) -> Path | None:
    """The folder directly below the source in which a scan lies, or which it is."""
    parts = path.relative_to(root).parts
    return root / parts[0] if len(parts) > 1 or (parts and path.is_dir()) else None


def _scans_below(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """Files and DICOM folders that may be scans; links are followed, but never in a circle."""
    if folder.resolve() in seen:
        return
    seen.add(folder.resolve())
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError:
        yield folder  # reading it will fail and be reported
        return
    files = [entry for entry in entries if entry.is_file()]
    if layouts.dicom_file(files) is not None:
        yield folder
    endings = (*CT_SUFFIXES, layouts.X2CT_FILE)
    yield from (file for file in files if file.name.lower().endswith(endings))
    for entry in entries:
        if entry.is_dir():
            yield from _scans_below(entry, seen)


def _unique_names(words_of: Mapping[Path, Sequence[str]]) -> dict[Path, str]:
    """The shortest names that differ; equal ones grow by the folders above them."""
    parts = {path: [_fit(word) for word in words] for path, words in words_of.items()}
    names: dict[Path, str] = {}
    taken: set[str] = set()
    length = 1
    while parts:
        groups: dict[str, list[Path]] = defaultdict(list)
        for path, words in parts.items():
            groups["-".join(words[-length:])].append(path)
        for name, group in groups.items():
            if len(group) == 1 and name not in taken:
                names[group[0]] = name
                taken.add(name)
                del parts[group[0]]
        length += 1
        if parts and length > max(len(words) for words in parts.values()):
            raise ValueError(f"several scans have one name: {', '.join(map(str, parts))}")
    return names


def _fit(word: str) -> str:
    """A word that is fit for a file's name."""
    return re.sub(r"[^\w.+-]", "_", word).lstrip(".") or "_"


def _text(path: Path) -> str:
    """The header part of a file as text."""
    with path.open("rb") as stream:
        return os.fsdecode(stream.read(65536))
