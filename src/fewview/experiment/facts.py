"""What is known of a model and of a store without running either; the cards are made of it."""

import hashlib
import json
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

from fewview import config as config_files
from fewview.data.splits import SPLITS
from fewview.data.store import open_store
from fewview.experiment.plan import fingerprint, model_folder
from fewview.experiment.prediction import loaded
from fewview.records import RECORD


def model_facts(model: str) -> dict[str, Any]:
    """What a model's folder says, and the run beside it where there is one.

    Args:
        model: Bundled name or model folder; a trained run keeps it as `RUN/model`.

    Returns:
        Name, fingerprint of the files, size in bytes, grid, views, resolved config as TOML;
        and of the run its record and training settings, empty where there is no run.

    Raises:
        ValueError: If the config cannot be read.
    """
    folder = model_folder(model)
    config = loaded(model, "cpu").config
    return {
        "name": config.name,
        "fingerprint": fingerprint(model),
        "weights_bytes": (folder / "weights.safetensors").stat().st_size,
        "size": config.grid.size,
        "extent_mm": config.grid.extent_mm,
        "window_hu": [config.grid.low_hu, config.grid.high_hu],
        "geometry": config.views.preset,
        "num_views": list(config.views.num_views),
        "config": config_files.to_toml(config),
        "run": _run_facts(folder.resolve().parent),
    }


def _run_facts(run: Path) -> dict[str, Any]:
    """The record and training settings of a run; empty if the folder is none."""
    try:
        record = json.loads((run / RECORD).read_text(encoding="utf-8"))
        settings = tomllib.loads((run / "config.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if record.get("command") != "train":
        return {}
    return {
        "fewview": record.get("fewview", ""),
        "inputs": record.get("inputs", []),
        "start": record.get("settings", {}).get("start"),
        "device": record.get("device", ""),
        "training": settings.get("training", {}),
    }


def store_facts(path: Path) -> dict[str, Any]:
    """What a prepared store's index says.

    Args:
        path: The store.

    Returns:
        Its name, the SHA-256 of its index, voxels, counts of cases and patients by split, the
        share of body outside the model grid, and counts by collection and by license.

    Raises:
        ValueError: If there is no store.
    """
    store = open_store(path)
    by_split = {
        split: {
            "cases": len(store.of_split(split)),
            "patients": len({case.patient for case in store.of_split(split)}),
        }
        for split in SPLITS
    }
    outside = [case.outside_share for case in store.cases]
    collections = Counter(case.collection or "not stated" for case in store.cases)
    licenses = Counter(case.license or "not stated" for case in store.cases)
    return {
        "name": path.resolve().name,
        "index_sha256": hashlib.sha256((path / "index.json").read_bytes()).hexdigest(),
        "size": store.size,
        "extent_mm": store.extent_mm,
        "keep_couch": store.settings.keep_couch,
        "splits": by_split,
        "split_sha256": store.split_hash,
        "layout": store.settings.layout,
        "collections": dict(collections),
        "licenses": dict(licenses),
        "outside_share_mean": sum(outside) / len(outside) if outside else 0.0,
        "outside_share_max": max(outside, default=0.0),
    }
