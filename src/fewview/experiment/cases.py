"""Where an experiment's truths come from, and their X-rays as files."""

import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch

from fewview.data.body import remove_couch
from fewview.data.files import replacing_folder
from fewview.data.images import read_volume, write_volume
from fewview.data.phantom import HELD_OUT_SEEDS, phantom
from fewview.data.store import open_store
from fewview.data.volume import Volume
from fewview.experiment.config import ExperimentConfig, slug
from fewview.xray.detector import DetectorConfig, expose
from fewview.xray.geometry import preset, spread_angles
from fewview.xray.views import Views, drr, read_views, write_views


@dataclass(frozen=True)
class Case:
    """One truth, by where it comes from."""

    name: str
    kind: Literal["phantom", "store", "file"]
    place: str
    """Seed of a phantom, id in a store, file below the CT folder."""

    checksum: str
    """SHA-256 of what the truth is made from: file, or the phantom's source, size and seed."""


@dataclass(frozen=True)
class Sources:
    """The folders that cases are read from."""

    store: Path | None = None
    ct_data: Path | None = None


def list_cases(config: ExperimentConfig, sources: Sources) -> list[Case]:
    """All cases of an experiment.

    Raises:
        ValueError: If a folder is missing or has no such case, or two cases share a name.
    """
    cases: list[Case] = []
    if config.phantoms is not None:
        code = f"{code_of('data/phantom')} {config.phantoms.size}"
        for seed in HELD_OUT_SEEDS[: config.phantoms.count]:
            checksum = hashlib.sha256(f"{code} {seed}".encode()).hexdigest()
            cases.append(Case(f"phantom-{seed}", "phantom", str(seed), checksum))
    if config.store is not None:
        if sources.store is None:
            raise ValueError("the config has a table store; give the store by --data")
        of_split = open_store(sources.store).of_split(config.store.split)[: config.store.count]
        if not of_split:
            raise ValueError(f"{sources.store} has no case in the split {config.store.split}")
        cases += [Case(slug(one.id), "store", one.id, one.checksum) for one in of_split]
    if config.files is not None:
        if sources.ct_data is None:
            raise ValueError("the config has a table files; give their folder by --ct-data")
        for path in config.files.paths:
            file = sources.ct_data / path
            cases.append(Case(_file_name(path), "file", path, checksum_of(file)))
    names = [case.name for case in cases]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two cases have the name {twice[0]}")
    return cases


def _file_name(path: str) -> str:
    """A case's name from its file: without folders and suffixes."""
    last = path.rstrip("/").split("/")[-1]
    return slug(last.split(".")[0]) or slug(last)


def checksum_of(path: Path) -> str:
    """SHA-256 of a file, or of all files of a folder with their names.

    Raises:
        ValueError: If it is not there.
    """
    if not path.exists():
        raise ValueError(f"there is no CT {path}")
    files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        if path.is_dir():
            digest.update(file.relative_to(path).as_posix().encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


@lru_cache
def code_of(part: str = "") -> str:
    """The first 12 digits of the SHA-256 of our own source below a folder."""
    import fewview

    digest = hashlib.sha256()
    for file in sorted((Path(fewview.__file__).parent / part).rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def read_truth(case: Case, config: ExperimentConfig, sources: Sources) -> Volume:
    """The CT of a case, without couch.

    Raises:
        ValueError: If it cannot be read.
    """
    match case.kind:
        case "phantom":
            assert config.phantoms is not None, "planned from this table"
            return phantom(int(case.place), size=config.phantoms.size).volume
        case "store":
            assert sources.store is not None, "checked when the cases were listed"
            store = open_store(sources.store)
            volume = store.read(case.place)
            return remove_couch(volume) if store.settings.keep_couch else volume
        case "file":
            assert sources.ct_data is not None, "checked when the cases were listed"
            return remove_couch(read_volume(sources.ct_data / case.place))


def write_case(case: Case, config: ExperimentConfig, sources: Sources, folder: Path) -> None:
    """Write a case's truth and all its X-rays: `truth.nii.gz` and the folder `views`.

    Angles that several view counts share are projected once. Noise, if any, is drawn from
    the case's checksum and the angle, so that it is the same whatever else runs.
    """
    truth = read_truth(case, config, sources)
    angles = sorted({angle for count in config.num_views for angle in spread_angles(count)})
    views = drr(
        truth, [preset(config.geometry, angle_deg=a, size=config.num_pixels) for a in angles]
    )
    if config.photons is not None:
        noisy = [
            _exposed(image, config.photons, f"{case.checksum} {angle}")
            for image, angle in zip(views.images, angles, strict=True)
        ]
        views = replace(views, images=torch.stack(noisy))
    with replacing_folder(folder, force=True) as writing:
        write_volume(truth, writing / "truth.nii.gz")
        write_views(views, writing / "views")


def _exposed(image: torch.Tensor, photons: float, name: str) -> torch.Tensor:
    """Line integrals with the noise that belongs to a name."""
    seed = int(hashlib.sha256(name.encode()).hexdigest()[:12], 16)
    generator = torch.Generator().manual_seed(seed)
    return expose(image, DetectorConfig(photons=photons), generator)


def read_some_views(folder: Path, num_views: int) -> Views:
    """The X-rays of a case at one view count, and no others."""
    views = read_views(folder / "views")
    angles = [geometry.primary_angle_deg for geometry in views.geometries]
    chosen = [angles.index(angle) for angle in spread_angles(num_views)]
    return Views(
        images=views.images[chosen],
        geometries=tuple(views.geometries[i] for i in chosen),
        isocenter_mm=views.isocenter_mm,
        calibrated=tuple(views.calibrated[i] for i in chosen),
        source=tuple(views.source[i] for i in chosen),
        geometry_source=tuple(views.geometry_source[i] for i in chosen),
    )
