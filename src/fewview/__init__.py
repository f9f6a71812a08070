"""CT volumes from one to sixteen X-ray views, and how far to trust them.

The names below are loaded on first use, so that `import fewview` and the command line stay
fast: nothing here imports torch or numpy by itself.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fewview.data.images import read_volume, write_volume
    from fewview.data.phantom import phantom
    from fewview.data.volume import Volume
    from fewview.evaluation.compare import compare
    from fewview.reconstruct import Reconstruction, reconstruct
    from fewview.xray.geometry import ViewGeometry, preset
    from fewview.xray.views import Views, drr, read_views, write_views

__version__ = "0.1.0"

__all__ = [
    "Reconstruction",
    "ViewGeometry",
    "Views",
    "Volume",
    "__version__",
    "compare",
    "drr",
    "phantom",
    "preset",
    "read_views",
    "read_volume",
    "reconstruct",
    "write_views",
    "write_volume",
]

_HOMES = {
    "Reconstruction": "fewview.reconstruct",
    "ViewGeometry": "fewview.xray.geometry",
    "Views": "fewview.xray.views",
    "Volume": "fewview.data.volume",
    "compare": "fewview.evaluation.compare",
    "drr": "fewview.xray.views",
    "phantom": "fewview.data.phantom",
    "preset": "fewview.xray.geometry",
    "read_views": "fewview.xray.views",
    "read_volume": "fewview.data.images",
    "reconstruct": "fewview.reconstruct",
    "write_views": "fewview.xray.views",
    "write_volume": "fewview.data.images",
}


def __getattr__(name: str) -> object:
    """Load a public name from the module that owns it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'fewview' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return sorted(__all__)


class _Package(ModuleType):
    """Keeps `fewview.reconstruct` the function when the module of that name is imported."""

    def __setattr__(self, name: str, value: object) -> None:
        """Set an attribute; a submodule never hides the public function it defines."""
        if name in _HOMES and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
