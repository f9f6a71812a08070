"""The table of the novelty score: `python benchmarks/novelty.py --data STORE [--count 300]`.

Projects augmented training bodies of a store as `fewview train configs/fewview-64.toml` does,
displays them as it does, and writes what they look like to src/fewview/bundled/novelty.json.
About a second per body on one CPU core.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fewview.data.store import open_store
from fewview.training.config import load_run
from fewview.training.examples import ScanCache, generator_of
from fewview.training.processes import join
from fewview.training.source import TrainingSource
from fewview.training.views import degrade, draw_geometries, project_body
from fewview.xray.novelty import KINDS, describe, kind_of, learn, to_json

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "configs" / "fewview-64.toml"
TABLE = ROOT / "src" / "fewview" / "bundled" / "novelty.json"


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--out", type=Path, default=TABLE)
    arguments = parser.parse_args()
    run, store = load_run(CONFIG), open_store(arguments.data)
    source = TrainingSource(run.system, run.training, store, ScanCache(store), join("cpu"))
    shown = replace(run.training.augmentation, display_share=1.0)
    views = replace(run.system.views, any_angle_share=0.0)
    figures: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    for key in source.keys()[: arguments.count]:
        generator = generator_of(run.training.seed, 90, key.seed)
        body = source.body(key)
        images, _ = project_body(body, draw_geometries(views, 2, generator))
        displayed, _ = degrade(images, shown, generator)
        for image, angle in zip(displayed[0], (0.0, 90.0), strict=True):
            figures[kind_of(angle)[0]].append(describe(image))
    known = {kind: learn(np.stack(rows)) for kind, rows in figures.items()}
    names = ", ".join(sorted({key.case.split("_")[0] for key in source.keys()}))  # noqa: SIM118
    origin = f"{arguments.count} augmented bodies of the train split, {CONFIG.name}: {names}"
    text = to_json(known, origin)
    arguments.out.write_text(text, encoding="utf-8")
    for kind, one in known.items():
        print(f"{kind}: 99 % below {one.limit:.2f}")  # noqa: T201


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
