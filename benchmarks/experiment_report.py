"""How long a report takes: `python benchmarks/experiment_report.py [--out DIR]`.

Generates finished per-case results of 8 methods x 5 view counts x 20 cases (noise for pictures, as
large as those of a 64^3 grid) and times `report_experiment`. At most 30 s are wanted.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from fewview.config import to_toml
from fewview.experiment.config import ExperimentConfig, PhantomCases
from fewview.experiment.methods import SirtMethod
from fewview.experiment.report import report_experiment
from fewview.experiment.results import (
    CONFIG,
    COSTS,
    PLAN,
    RESULTS,
    Result,
    write_json,
    write_result,
)

NUM_METHODS, VIEWS, NUM_CASES = 8, (1, 2, 4, 8, 16), 20
PICTURE = (192, 192, 3)
MEASURES = ("psnr", "ssim", "mae", "rmse", "bias", "bone_dice", "power_spectrum_ratio")


def generate(out: Path) -> int:
    """Write an experiment's folder as if it had run; returns the number of results."""
    for name in (RESULTS, COSTS):
        (out / name).mkdir(parents=True)
    generator = np.random.default_rng(0)
    methods = {f"method {index}": SirtMethod(num_steps=index + 1) for index in range(NUM_METHODS)}
    config = ExperimentConfig(
        name="Generated",
        reference="method 0",
        methods=dict(methods),
        num_views=VIEWS,
        phantoms=PhantomCases(count=NUM_CASES),
    )
    (out / CONFIG).write_text(to_toml(config))
    keys = []
    costs = {
        name: {str(views): f"{i}-{views}" for views in VIEWS} for i, name in enumerate(methods)
    }
    for index, name in enumerate(methods):
        for views in VIEWS:
            write_json(out / COSTS / f"{costs[name][str(views)]}.json", {"flop": 1e9 * views})
            for case in range(NUM_CASES):
                key = f"{index}-{views}-{case}"
                keys.append(key)
                values = index + views**0.5 + generator.normal(size=len(MEASURES))
                result = Result(
                    key=key,
                    method=name,
                    ceiling=False,
                    case=f"phantom-{case}",
                    num_views=views,
                    seed=0,
                    scores=dict(zip(MEASURES, values.tolist(), strict=True))
                    | {"reprojection_error": 0.1},
                    seconds=float(0.1 * (index + 1) * views),
                    nfe=4 * index,
                    peak_memory_mb=900.0,
                )
                write_result(out / RESULTS, result)
                pixels = generator.integers(256, size=PICTURE).astype(np.uint8)
                Image.fromarray(pixels).save(out / RESULTS / f"{key}.png")
    cases = [
        {"name": f"phantom-{i}", "kind": "phantom", "place": str(i), "checksum": "0" * 16}
        for i in range(NUM_CASES)
    ]
    plan = {"results": keys, "skipped": [], "failed": [], "cases": cases, "costs": costs}
    write_json(out / PLAN, plan | {"workers": 1, "models": {}, "store": None})
    return len(keys)


def main() -> None:
    """Generate, report, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="keep the folder here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        out = options.out or Path(scratch) / "generated"
        count = generate(out)
        started = time.perf_counter()
        report_experiment(out)
        seconds = time.perf_counter() - started
        size_mb = (out / "report.html").stat().st_size / 1e6
        print(f"{count} results: {seconds:.1f} s, report.html {size_mb:.1f} MB")  # noqa: T201


if __name__ == "__main__":
    main()
