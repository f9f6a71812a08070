"""The file of the segmentation transfer says what is compared, and nonsense is refused."""

from pathlib import Path

import pytest

from fewview.config import load, parse, to_toml
from fewview.experiment.segmentation_config import SegmentationConfig

ROOT = Path(__file__).parents[2]

GOOD = """
name = "a test"
seeds = [0, 1]
[data]
layout = "msd"
num_test = 8
[data.classes]
lung = ["lung", "airway"]
[pretraining]
num_steps = 4
[finetuning]
num_steps = 4
"""


def test_a_file_is_read_and_written_back_as_it_was():
    config = parse(GOOD, SegmentationConfig)
    assert config.data.classes == {"lung": ("lung", "airway")}
    assert parse(to_toml(config), SegmentationConfig) == config


def test_the_network_is_chosen_by_its_kind():
    text = GOOD + '[network]\nkind = "swinunetr"\n'
    assert parse(text, SegmentationConfig).network.reduction == 32


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("segmentation-*.toml")))
def test_every_transfer_that_comes_along_loads(path):
    config = load(path, SegmentationConfig)
    assert config.arms == ("none", "real", "reconstructed")
    assert path.read_text().startswith("# python -m fewview.experiment.segmentation configs/")


def test_a_transfer_comes_along():
    assert list((ROOT / "configs").glob("segmentation-*.toml"))


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("num_test = 8", "num_test = 1", "at least 2 for intervals"),
        ("num_test = 8", "num_test = 8\nlabel_counts = [0]", "label_counts must be 1 or more"),
        ("num_test = 8", "num_test = 8\nlabel_counts = [2, 2]", "stands twice"),
        ("num_test = 8", "num_test = 8\nnum_unlabelled = 0", "num_unlabelled must be 1"),
        ("seeds = [0, 1]", "seeds = [0, 0]", "each once"),
        ("seeds = [0, 1]", "seeds = [-1]", "seeds must be 0 or more"),
        ("seeds = [0, 1]", 'arms = ["photographs"]', "photographs"),
        ("[pretraining]", "[reconstruction]\nnum_views = 0\n[pretraining]", "num_views must be 1"),
        (
            "[pretraining]",
            '[reconstruction]\ngeometry = "x"\n[pretraining]',
            "geometry must be one",
        ),
        ("[pretraining]", "[reconstruction]\nnum_pixels = 4\n[pretraining]", "at least 8, got 4"),
        ("[pretraining]", "[grid]\nsize = 8\n[pretraining]", "twice at least; got 8"),
        (
            "[finetuning]",
            "[pretraining.damage]\nmask_edge = 7\n[finetuning]",
            "7 voxels do not fill a grid of 64",
        ),
        ("[finetuning]", "[finetuning]\ncolour = 1", "colour"),
    ],
)
def test_what_cannot_be_compared_is_refused(old, new, why):
    assert old in GOOD
    with pytest.raises(ValueError, match=why):
        parse(GOOD.replace(old, new, 1), SegmentationConfig)
