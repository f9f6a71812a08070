"""Every command of docs/reproduce.md, in order, tiny, on stand-ins laid out like the archives."""

import re
import runpy
import shlex
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import DigitalXRayImageStorageForPresentation

from fewview.data.dicom_writer import write_series
from fewview.data.images import write_volume
from fewview.data.leaks import main as leaks
from fewview.data.store import open_store
from fewview.data.volume import Volume

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reproduce.md"

pytestmark = [
    pytest.mark.skipif(not PAGE.is_file(), reason="not a source checkout"),
    pytest.mark.slow,
]

LISTS = {
    "train": "0001.20000101.3000566 0003.20000101.3000611 0132.20000101.3163 "
    "0151.20000101.3144 0355.20000101.3190",
    "val": "0002.20000101.3000522 0442.20000101.5405",
    "test": "0132.20000101.3164 0151.20000101.3145 0355.20000101.3191 0442.20000101.5406",
}
"""Series invented in the form of the published lists, with the patients that these share."""

NAMES = {split: [f"LIDC-IDRI-{name}.1" for name in text.split()] for split, text in LISTS.items()}


def ball(number: int) -> Volume:
    """A ball of fat, another for each scan, in a cube of 320 mm."""
    axis = np.linspace(-1.0, 1.0, 16)
    distance = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    hu = np.where(distance < 0.6 + 0.02 * number, -80.0 + number, -1000.0).astype(np.float32)
    return Volume(hu, np.diag([20.0, 20.0, 20.0, 1.0]))


def lay_out_archive() -> None:
    """DICOM series with their numbers in folder and header, and a radiograph beside them."""
    for index, name in enumerate(name for names in NAMES.values() for name in names):
        patient, _, number, _ = name.split(".")
        study = Path("LIDC-IDRI", patient, f"01-01-2000-NA-NA-{30000 + index}")
        write_series(ball(index), study / f"{number}.000000-NA-{index:05d}")
        tag(study / f"{number}.000000-NA-{index:05d}", SeriesNumber=int(number))
    radiograph = Path("LIDC-IDRI/LIDC-IDRI-0001/01-01-2000-NA-NA-35511/3000923.000000-NA-62357")
    write_series(Volume(np.zeros((1, 4, 4), np.float32), np.eye(4)), radiograph)
    tag(radiograph, SOPClassUID=DigitalXRayImageStorageForPresentation)


def tag(folder: Path, **values: object) -> None:
    for path in folder.iterdir():
        dataset = dcmread(path)
        for name, value in values.items():
            setattr(dataset, name, value)
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.save_as(path)


def lay_out_x2ct() -> None:
    h5py = pytest.importorskip("h5py")
    for index, name in enumerate(name for names in NAMES.values() for name in names):
        Path("X2CT", name).mkdir(parents=True)
        with h5py.File(Path("X2CT", name, "ct_xray_data.h5"), "w") as file:
            file["ct"] = (ball(index).hu + 1024).astype(np.int16)
            file["xray1"] = file["xray2"] = np.zeros((16, 16), np.uint8)


def lay_out_ctspine1k() -> None:
    for index in range(40, 52):  # of these names the default rule puts one into val, four into test
        folder = Path("CTSpine1K/raw_data/volumes", "liver" if index % 2 else "COLONOG")
        name = f"liver_{index}" if index % 2 else f"1.3.6.1.4.1.9328.50.4.{index:04d}"
        write_volume(ball(index - 40), folder / f"{name}.nii.gz")
        masks = Path("CTSpine1K/raw_data/labels", folder.name)
        write_volume(ball(index - 40), masks / f"{name}_seg.nii.gz")


LAYOUTS = {
    "lidc-idri": lay_out_archive,
    "x2ct": lay_out_x2ct,
    "ctspine1k": lay_out_ctspine1k,
}


def recipe(name: str) -> list[str]:
    """The commands of a data set."""
    found = re.search(rf"```sh {name}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return found[1].splitlines()


def tiny(line: str, config: Path) -> str:
    """The same command on a grid, a model and an experiment of 16 voxels a side."""
    line = line.replace("configs/clsdm-paper.toml", str(config)).replace("--size 128", "--size 16")
    line = line.replace(" --workers 8", "")
    if experiment := re.search(r"configs/(experiment-.*?\.toml)", line):
        text = (ROOT / "configs" / experiment[1]).read_text(encoding="utf-8")
        text = text.replace("num_pixels = 128", "num_pixels = 16").replace("nfe = 50", "nfe = 1")
        text = text.replace("size = 128", "size = 16")
        Path(experiment[1]).write_text(text, encoding="utf-8")
        line = line.replace(experiment[0], experiment[1])
    return line


def run_line(line: str, command) -> None:
    """Run a command in this process where it is one of ours."""
    if line.startswith("fewview "):
        done = command(*shlex.split(line)[1:])
        assert done.exit_code == 0, f"{line}: {done.stderr}{done.exception!r}"
    elif line.startswith("python -m "):
        words, out = line.removeprefix("python -m ").split(" > ")
        module, *rest = words.split()
        with (
            Path(out).open("w") as file,
            redirect_stdout(file),
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setattr(sys, "argv", [module, *rest])
            patch.delitem(sys.modules, module, raising=False)
            with pytest.raises(SystemExit) as ended:
                runpy.run_module(module, run_name="__main__")
        assert ended.value.code == 0, line
    else:
        subprocess.run(line, shell=True, check=True)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_recipe_leads_from_the_archive_to_the_table(
    name, tiny_config, tmp_path, monkeypatch, command
):
    monkeypatch.chdir(tmp_path)
    text = tiny_config.read_text().replace("num_steps = 4", "num_steps = 2")
    text = text.replace("size = 16\n", "size = 16\nextent_mm = 320.0\n", 1)
    text = text.replace("num_pixels = 16", 'num_pixels = 16\npreset = "x2ct"')
    tiny_config.write_text(text)
    LAYOUTS[name]()
    for split, names in NAMES.items():
        Path(f"{split}.txt").write_text("\n".join(names) + "\n")
    for line in recipe(name):
        run_line(tiny(line, tiny_config), command)
    data_set = "ctspine1k" if name == "ctspine1k" else "lidc-idri"
    store = open_store(Path("stores", data_set))
    counts = {split: len(store.of_split(split)) for split in ("train", "val", "test")}
    if name != "ctspine1k":
        assert counts == {"train": 2, "val": 1, "test": 4}
    table = Path(f"{data_set}-experiment", "tables.md").read_text()
    assert re.search(rf"\| CLS-DM \| {counts['test']} \| \d", table)
    assert "Protocol clsdm" in table
    assert "Failed" not in table


def test_the_leak_check_finds_the_four_patients_of_the_stand_in(tmp_path, capsys):
    for split, names in NAMES.items():
        (tmp_path / split).write_text("\n".join(names) + "\n")
    assert leaks([str(tmp_path / split) for split in NAMES]) == 1
    assert "4 patients in several lists" in capsys.readouterr().out
