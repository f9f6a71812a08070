"""Does pre-training on reconstructed CT help segmentation as much as on real CT?

    python -m fewview.experiment.segmentation CONFIG --data FOLDER --out DIR [--unlabelled STORE]

A network is pre-trained without labels on CTs reconstructed from X-rays, on the real CTs that
those X-rays were made from, or not at all; fine-tuned on few and on many labelled cases with one
budget; and scored by Dice on patients that neither saw. Killed at any moment, it goes on where it
was: volumes, checkpoints and the result of every finished run are files.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from fewview import config as config_files
from fewview.data.files import replacing_file
from fewview.data.images import read_labels
from fewview.data.labelled import LabelledSet, class_table, divide, find_labelled
from fewview.evaluation.regions import dice
from fewview.experiment.results import write_json
from fewview.experiment.segmentation_config import Arm, SegmentationConfig
from fewview.experiment.segmentation_report import Run, lines_of, write_report
from fewview.experiment.segmentation_volumes import (
    roles_of,
    unlabelled_cts,
    write_real,
    write_reconstructed,
)
from fewview.progress import steps
from fewview.records import RECORD, is_record_of, write_record
from fewview.training.loop import Report
from fewview.training.processes import join
from fewview.transfer.pretrain import pretrain
from fewview.transfer.segment import Example, finetune, read_example, write_segmentation
from fewview.transfer.segmenter import build_segmenter, need_monai, replace_head
from fewview.transfer.setting import Setting, UnitVolumes

COMMAND = "segmentation"
CONFIG, CASES = "config.toml", "cases.json"
RESULTS, RUNS, VOLUMES, MAPS = "results", "runs", "volumes", "maps"
"""Files and folders of an experiment."""


@dataclass(frozen=True, eq=False)
class Work:
    """What every run of an experiment needs."""

    config: SegmentationConfig
    out: Path
    names: tuple[str, ...]
    """Of the classes, from 1."""

    pool: tuple[Example, ...]
    """Cases whose labels may be learned from."""

    test: tuple[Example, ...]
    volumes: Mapping[Arm, UnitVolumes]
    device: str
    report: Report


def run_segmentation(
    config: SegmentationConfig,
    out: Path,
    *,
    data: Path,
    unlabelled: Path | None = None,
    device: str = "cpu",
    report: Report = lambda *_: None,
) -> list[Run]:
    """Do all runs that are not done yet and write the report.

    Args:
        config: What to compare.
        out: Folder of the experiment: new, empty, or begun with the same config and cases.
        data: The labelled cases, laid out as the config says.
        unlabelled: A store or a folder of CT files to pre-train on; by default cases of `data`.
        device: Where networks compute.
        report: Shows how far it is.

    Returns:
        The result of every run.

    Raises:
        ValueError: If MONAI is missing, cases are missing or in two roles, or `out` holds
            something else.
    """
    need_monai()
    found = find_labelled(data, config.data.layout)
    names, table = class_table(found.labels, config.data.classes)
    wanted = {"test": config.data.num_test, "labelled": max(config.data.label_counts)}
    if unlabelled is None:
        wanted["unlabelled"] = config.data.num_unlabelled
    groups = divide(found.cases, wanted, seed=config.data.seed)
    own = groups.pop("unlabelled", ())
    cts = unlabelled_cts(unlabelled, own, count=config.data.num_unlabelled)
    inputs = [data, *([unlabelled] if unlabelled else [])]
    _claim(out, config, found, roles_of(groups, cts), inputs, device)
    volumes: dict[Arm, UnitVolumes] = {}
    if "real" in config.arms:
        paths = write_real(cts, out / VOLUMES / "real", config.grid, report=report)
        volumes["real"] = UnitVolumes(paths, config.grid)
    if "reconstructed" in config.arms:
        folder = out / VOLUMES / "reconstructed"
        paths = write_reconstructed(
            cts, folder, config.reconstruction, device=device, report=report
        )
        volumes["reconstructed"] = UnitVolumes(paths, config.grid)
    reading = _setting(config, 0, device)
    pool, test = (
        tuple(read_example(case, found, table, reading) for case in groups[name])
        for name in ("labelled", "test")
    )
    if sum(bool(one.classes.any()) for one in test) < 2:
        raise ValueError("an interval needs two test cases that have a class; choose other classes")
    runs = _all_runs(Work(config, out, names, pool, test, volumes, device, report))
    write_report(out, config, names, runs)
    return runs


def _setting(config: SegmentationConfig, seed: int, device: str) -> Setting:
    """How the networks of a seed are trained."""
    return Setting(config.grid, config.network.reduction, seed, config.precision, join(device))


def _claim(
    out: Path,
    config: SegmentationConfig,
    found: LabelledSet,
    roles: Mapping[str, Mapping[str, str]],
    inputs: Sequence[Path],
    device: str,
) -> None:
    """Make the folder, or see that it was begun with the same config and cases."""
    if out.is_dir() and any(out.iterdir()) and not is_record_of(out / RECORD, COMMAND):
        raise ValueError(f"{out} is not empty and holds no segmentation experiment")
    texts = {
        CONFIG: config_files.to_toml(config),
        CASES: json.dumps({"source": found.name, **roles}, indent=1) + "\n",
    }
    for name, text in texts.items():
        kept = out / name
        if kept.is_file() and kept.read_text(encoding="utf-8") != text:
            raise ValueError(f"{out} was begun with another {name}; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    write_record(out / RECORD, COMMAND, settings=asdict(config), inputs=inputs, device=device)
    for name, text in texts.items():
        with replacing_file(out / name) as writing:
            writing.write_text(text, encoding="utf-8")


def _all_runs(work: Work) -> list[Run]:
    """Every run; what is finished is read."""
    runs = []
    for seed in work.config.seeds:
        for arm in work.config.arms:
            for count in work.config.data.label_counts:
                path = work.out / RESULTS / f"{arm}-{count}-labels-seed-{seed}.json"
                if not path.is_file():
                    write_json(path, asdict(_run(work, arm, count, seed)))
                told = json.loads(path.read_text(encoding="utf-8"))
                runs.append(Run(**told))
    return runs


def _run(work: Work, arm: Arm, count: int, seed: int) -> Run:
    """Pre-train if the arm does, fine-tune, segment the test cases, score the files."""
    config = work.config
    setting = _setting(config, seed, work.device)
    torch.manual_seed(seed)
    network = build_segmenter(config.network, out_channels=len(work.names) + 1)
    if arm != "none":
        replace_head(config.network, network, _pretrained(work, arm, setting))
    network.to(setting.device)
    order = torch.randperm(len(work.pool), generator=setting.generator(20)).tolist()
    examples = [work.pool[index] for index in order[:count]]
    folder = work.out / RUNS / f"{arm}-seed-{seed}" / f"{count}-labels"
    finetune(config.finetuning, network, examples, setting, folder, report=work.report)
    scores = {}
    for example in work.test:
        path = work.out / MAPS / f"{arm}-{count}-labels-seed-{seed}" / f"{example.id}.nii.gz"
        write_segmentation(network, example, setting, path)
        scores[example.id] = dice_of(path, example.classes, work.names)
    return Run(arm=arm, num_labels=count, seed=seed, dice=scores)


def _pretrained(work: Work, arm: Arm, setting: Setting) -> dict[str, Tensor]:
    """The weights of an arm's pre-training for a seed, trained when they are not there yet."""
    torch.manual_seed(setting.seed)
    network: nn.Module = build_segmenter(work.config.network, out_channels=1)
    folder = work.out / RUNS / f"{arm}-seed-{setting.seed}"
    pretrain(
        work.config.pretraining,
        network.to(setting.device),
        work.volumes[arm],
        setting,
        folder,
        report=work.report,
    )
    return {name: value.cpu() for name, value in network.state_dict().items()}


def dice_of(
    path: Path, classes: UInt8[Tensor, "depth height width"], names: Sequence[str]
) -> dict[str, float]:
    """Dice of a label map in a file for each class that the truth has."""
    predicted, _ = read_labels(path)
    truth = classes.numpy()
    return {
        name: dice(predicted == index, truth == index)
        for index, name in enumerate(names, start=1)
        if (truth == index).any()
    }


def main(words: Sequence[str]) -> int:
    """Run the experiment named on the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fewview.experiment.segmentation")
    parser.add_argument("config", type=Path, help="what to compare (TOML)")
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled cases")
    parser.add_argument("--out", type=Path, required=True, help="folder; resumed if begun")
    parser.add_argument("--unlabelled", type=Path, help="store or folder of CT to pre-train on")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(words)
    try:
        config = config_files.load(options.config, SegmentationConfig)
        with steps(COMMAND) as progress:
            runs = run_segmentation(
                config,
                options.out,
                data=options.data,
                unlabelled=options.unlabelled,
                device=options.device,
                report=progress.staged,
            )
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write("\n".join([*lines_of(config, runs), ""]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
