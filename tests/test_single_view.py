"""The whole path from one PA view, and from one real radiograph."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from fewview.data.images import read_volume
from fewview.data.phantom import phantom
from fewview.reconstruct import reconstruct
from fewview.xray.acquisition import as_detected
from fewview.xray.geometry import preset
from fewview.xray.radiograph import read_radiographs
from fewview.xray.views import drr


@pytest.fixture
def radiograph(tmp_path):
    """A display-style PA picture of a phantom, without any geometry."""
    views = as_detected(drr(phantom(7, size=48).volume, [preset("chest", size=128)]), display=True)
    path = tmp_path / "pa.png"
    Image.fromarray((255.0 * views.images[0, 0]).round().byte().numpy()).save(path)
    return path


def test_one_view_goes_all_the_way(ct_file, tiny_run, tmp_path, command):
    views, made = tmp_path / "one", tmp_path / "ct.nii.gz"
    for words in (
        ("project", ct_file, "--out", views, "--angles-deg", 0, "--size", 32),
        ("reconstruct", views, "--out", made, "--model", tiny_run / "model", "--nfe", 1),
        ("evaluate", "--prediction", made, "--truth", ct_file, "--grid", "truth",
         "--out", tmp_path / "scores"),
    ):  # fmt: skip
        result = command(*words)
        assert result.exit_code == 0, f"{result.stderr}{result.exception!r}"
        assert ("one view along about 0 degrees" in result.stderr) == (words[0] == "reconstruct")
    assert (views / "view_00.tiff").is_file()
    assert not (views / "view_01.tiff").exists()
    assert read_volume(made).hu.shape == (16, 16, 16)


def test_a_radiograph_becomes_a_chest_and_the_record_says_what_was_assumed(
    radiograph, tmp_path, command
):
    made = tmp_path / "ct.nii.gz"
    result = command("reconstruct", radiograph, "--angles-deg", 0, "--nfe", 0, "--out", made)
    assert result.exit_code == 0, result.stderr
    assert result.stderr.count("distances are not known") == 1
    assert "far from the" not in result.stderr
    settings = json.loads((tmp_path / "ct.run.json").read_text())["settings"]
    assert settings["geometry_source"] == ["assumed"]
    assert 0.0 < settings["novelty"][0]["score"] < settings["novelty"][0]["limit"]
    hu = read_volume(made).hu
    middle = hu[20:44]
    lungs = ((middle > -950) & (middle < -500)).mean()
    assert 0.1 < lungs < 0.5
    left, right = hu[24:36, :, 36:52].mean(), hu[24:36, :, 12:28].mean()
    assert left > right  # the heart


def test_a_picture_of_no_chest_is_told(tmp_path, tiny_run, command):
    path = tmp_path / "noise.png"
    noise = np.random.default_rng(0).integers(0, 256, (128, 128)).astype(np.uint8)
    Image.fromarray(noise).save(path)
    result = command(
        "reconstruct", path, "--angles-deg", 0, "--model", tiny_run / "model", "--nfe", 1,
        "--out", tmp_path / "ct.nii.gz",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "that fewview-64 was trained on, do not trust it: view 0" in result.stderr


def test_markings_can_be_kept(radiograph, tiny_run, tmp_path, command):
    pixels = np.array(Image.open(radiograph))
    pixels[:, :20] = 255
    Image.fromarray(pixels).save(radiograph)
    volumes = []
    for flags in ((), ("--keep-markings",)):
        made = tmp_path / f"{len(flags)}.nii.gz"
        result = command(
            "reconstruct", radiograph, "--angles-deg", 0, "--model", tiny_run / "model",
            "--nfe", 1, "--out", made, *flags,
        )  # fmt: skip
        assert result.exit_code == 0, result.stderr
        volumes.append(torch.from_numpy(read_volume(made).hu))
    assert not torch.equal(*volumes)


def looks_like_a_chest(hu: np.ndarray) -> bool:
    """Air on the left and on the right, a mediastinum between, and less air in the abdomen."""
    slab = hu[:, 20:44] < -500.0  # about the middle of the body's depth
    thorax, abdomen = slab[28:44], slab[8:16, :, 20:44]
    left, right, middle = (thorax[:, :, cols].mean() for cols in np.s_[36:46, 18:28, 29:35])
    # One side may be small: a raised diaphragm leaves the other lung where the abdomen is sought.
    deeper = (left + right) / 2 > abdomen.mean() + 0.2
    return bool(min(left, right) > 0.2 and middle < 0.15 and deeper)


@pytest.mark.parametrize("number", range(8))
def test_every_real_radiograph_is_read_and_becomes_a_chest(real_data, number, tmp_path, command):
    paths = sorted((real_data / "xray").iterdir())
    assert len(paths) == 8
    made = tmp_path / "ct.nii.gz"
    result = command("reconstruct", paths[number], "--angles-deg", 0, "--nfe", 0, "--out", made)
    assert result.exit_code == 0, result.stderr
    assert looks_like_a_chest(read_volume(made).hu)


def test_what_is_no_upright_chest_does_not_look_like_one(radiograph):
    views = read_radiographs([radiograph], [0.0])
    noise = torch.rand(views.images.shape, generator=torch.Generator().manual_seed(0))
    ramp = torch.linspace(0.0, 1.0, views.images.shape[-1]).expand_as(views.images)
    for images, chest in (
        (views.images, True),
        (views.images.flip(-2), False),
        (views.images.transpose(-1, -2), False),
        (noise, False),
        (ramp, False),
    ):
        made = reconstruct(replace(views, images=images), nfe=0).volume
        assert looks_like_a_chest(made.hu) == chest
