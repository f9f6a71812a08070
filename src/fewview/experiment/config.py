"""What an experiment compares: the TOML file of `fewview experiment`."""

import re
from dataclasses import dataclass, field

from fewview.data.phantom import HELD_OUT_SEEDS
from fewview.data.splits import SPLITS
from fewview.experiment.methods import AutoencoderCeiling, GridCeiling, Method
from fewview.xray.geometry import PRESET_NAMES

MAX_VIEWS = 16


@dataclass(frozen=True, kw_only=True)
class PhantomCases:
    """Phantoms that no training ever saw."""

    count: int
    """How many of the held-out seeds, from the first."""

    size: int = 128
    """Voxels along each edge of the 400 mm cube."""

    def __post_init__(self) -> None:
        """Refuse more than there are."""
        if not 1 <= self.count <= len(HELD_OUT_SEEDS):
            raise ValueError(f"count must be 1 to {len(HELD_OUT_SEEDS)}, got {self.count}")


@dataclass(frozen=True, kw_only=True)
class StoreCases:
    """Cases of a prepared store, given by `--data`."""

    split: str = "test"
    """Which split."""

    count: int | None = None
    """How many, from the first name; all by default."""

    def __post_init__(self) -> None:
        """Refuse a split that no store has."""
        if self.split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {self.split!r}")
        if self.count is not None and self.count < 1:
            raise ValueError(f"count must be at least 1, got {self.count}")


@dataclass(frozen=True, kw_only=True)
class FileCases:
    """CT files below the folder given by `--ct-data`; the couch is removed."""

    paths: tuple[str, ...]
    """Files or DICOM folders, relative to that folder."""

    def __post_init__(self) -> None:
        """Refuse none, and names that leave the folder."""
        if not self.paths:
            raise ValueError("paths is empty; leave the table out or name a file")
        for path in self.paths:
            if path.startswith("/") or ".." in path.split("/"):
                raise ValueError(f"paths must lie below --ct-data, got {path!r}")


@dataclass(frozen=True, kw_only=True)
class CubeConfig:
    """A cube of isotropic voxels about the isocenter."""

    size: int = 64
    """Voxels along each edge."""

    extent_mm: float = 400.0
    """Edge in mm."""

    def __post_init__(self) -> None:
        """Refuse a cube without voxels, or too small for SSIM's window."""
        if self.size < 8:
            raise ValueError(f"size must be at least 8, got {self.size}")
        if not self.extent_mm > 0.0:
            raise ValueError(f"extent_mm must be positive, got {self.extent_mm}")


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """Methods, views, seeds and cases of one experiment, and how they are scored."""

    name: str
    """What the report is called."""

    reference: str
    """The method that all others are tested against."""

    methods: dict[str, Method]
    """By the name to show, in the order to show."""

    num_views: tuple[int, ...] = (1, 2, 4, 8, 16)
    """View counts, spread over 180 degrees from 0."""

    seeds: tuple[int, ...] = (0,)
    """Seeds of methods that draw samples, and of `{seed}` in model folders."""

    geometry: str = "chest"
    """Preset of all views."""

    num_pixels: int = 256
    """Detector pixels per side; the detector keeps its extent."""

    photons: float | None = None
    """Noise of this many photons per pixel in air; noise-free by default."""

    protocols: tuple[str, ...] = ("hu3d",)
    """Protocols to score by; `hu3d` is always there and gives the headline."""

    keep_volumes: bool = False
    """Keep truths, views and every prediction; scoring anew then needs no prediction."""

    phantoms: PhantomCases | None = None
    store: StoreCases | None = None
    files: FileCases | None = None

    grid: CubeConfig = field(default_factory=CubeConfig)
    """Grid of the methods that have none of their own."""

    scored: CubeConfig = field(default_factory=lambda: CubeConfig(extent_mm=320.0))
    """Grid on which every method is scored."""

    def __post_init__(self) -> None:
        """Refuse what cannot be run or compared."""
        if not self.methods:
            raise ValueError("there are no methods")
        if self.phantoms is None and self.store is None and self.files is None:
            raise ValueError("there are no cases; add a table phantoms, store or files")
        if not self.num_views or not all(1 <= n <= MAX_VIEWS for n in self.num_views):
            raise ValueError(f"num_views must be 1 to {MAX_VIEWS}, got {self.num_views}")
        if not self.seeds or min(self.seeds) < 0:
            raise ValueError(f"seeds must be 0 or more, got {self.seeds}")
        for values in (self.num_views, self.seeds, self.protocols):
            if len(set(values)) != len(values):
                raise ValueError(f"the same value stands twice in {values}")
        if self.geometry not in PRESET_NAMES:
            raise ValueError(f"geometry must be one of {', '.join(PRESET_NAMES)}")
        if self.num_pixels < 8:
            raise ValueError(f"num_pixels must be at least 8, got {self.num_pixels}")
        if self.photons is not None and not self.photons > 0.0:
            raise ValueError(f"photons must be positive, got {self.photons}")
        self._check_names()
        self._check_shares()

    def _check_shares(self) -> None:
        """A method runs a part of the experiment, and not nothing."""
        for name, method in self.methods.items():
            for key, all_of_them in (("num_views", self.num_views), ("seeds", self.seeds)):
                chosen = getattr(method, key)
                if chosen is None:
                    continue
                others = sorted({*chosen} - {*all_of_them})
                if others or not chosen:
                    what = f"{others[0]}, not one of the experiment's" if others else "empty"
                    raise ValueError(f"{name}: {key} is {what}; it has {all_of_them}")

    def _check_names(self) -> None:
        """Names become file names, and the reference has to be a fair method."""
        slugs = [slug(name) for name in self.methods]
        if not all(slugs) or len(set(slugs)) < len(slugs):
            raise ValueError(f"method names must differ in letters or digits: {[*self.methods]}")
        reference = self.methods.get(self.reference)
        if reference is None:
            raise ValueError(f"reference {self.reference!r} is none of {', '.join(self.methods)}")
        if isinstance(reference, AutoencoderCeiling | GridCeiling):
            raise ValueError(f"reference {self.reference!r} sees the truth; name a fair method")


def slug(name: str) -> str:
    """A name as a file name: lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
