"""Every training configuration that is committed can be read and trained."""

from pathlib import Path

import pytest

from fewview import config
from fewview.experiment.config import ExperimentConfig
from fewview.experiment.segmentation_config import SegmentationConfig
from fewview.training.config import load_run

CONFIGS = Path(__file__).parents[2] / "configs"
HOW = (
    "# fewview train configs/",
    "# fewview experiment",
    "# python bench",
    "# python -m fewview.experiment.segmentation configs/",
)


@pytest.mark.parametrize(
    "path", sorted(CONFIGS.rglob("*.toml")), ids=lambda path: str(path.relative_to(CONFIGS))
)
def test_a_committed_config_loads_and_says_how_it_is_run(path):
    if path.name.startswith("experiment-"):
        assert config.load(path, ExperimentConfig).methods
    elif path.name.startswith("segmentation-"):
        assert config.load(path, SegmentationConfig).arms
    else:
        assert load_run(path).system.name
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith(HOW)
