"""A style model trains, resumes exactly and is put before a reconstruction."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fewview.bundle import load_model, load_style
from fewview.data.phantom import phantom
from fewview.reconstruct import reconstruct
from fewview.training import train
from fewview.training.config import load_run
from fewview.training.examples import Body
from fewview.training.style import (
    augmented,
    drr_pictures,
    frontal_pictures,
    least_squares,
    redisplayed,
    style_losses,
)
from fewview.training.style_config import StyleRun, StyleStage
from fewview.transfer.style import (
    Generator,
    GeneratorConfig,
    StyleBundle,
    StyleConfig,
    build_style,
    in_drr_style,
    standardized,
)
from fewview.xray.acquisition import as_detected
from fewview.xray.detector import display_style
from fewview.xray.geometry import preset
from fewview.xray.style import COLLIMATION, GAMMA, WINDOW_CUT
from fewview.xray.views import drr

TINY = """
[system]
kind = "style"
name = "tiny-style"
[system.grid]
size = 16
[system.views]
num_pixels = 32
num_views = [1]
num_views_weights = [1.0]
any_angle_share = 0.0
[system.generator]
width = 4
num_halvings = 1
num_blocks = 1
[system.discriminator]
width = 4
num_strided = 2
[training]
num_examples = 4
precision = "float32"
[training.style]
num_steps = 4
batch_size = 2
log_every = 1
save_every = 2
"""


@pytest.fixture
def config(tmp_path) -> Path:
    path = tmp_path / "style.toml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory) -> Path:
    """A folder with two pictures that are radiographs of nobody, and a note."""
    folder = tmp_path_factory.mktemp("radiographs")
    for index in range(2):
        views = as_detected(
            drr(phantom(20 + index, size=32).volume, [preset("chest", size=48)]), display=True
        )
        shown = (255.0 * views.images[0, 0] ** 2).byte().numpy()
        Image.fromarray(shown).save(folder / f"{index}.png")
    (folder / "notes.txt").write_text("not a picture")
    return folder


@pytest.fixture(scope="module")
def views():
    """One display-style view of a phantom."""
    made = drr(phantom(5, size=32).volume, [preset("chest", size=64)])
    return as_detected(made, display=True)


class Stopped(Exception):
    """Stands for a kill."""


def stop_at_three(_stage: str, done: int, _steps: int, _shown: str) -> None:
    if done == 3:
        raise Stopped


def test_a_style_model_trains_resumes_exactly_and_is_applied(
    config, radiographs, views, tiny_store, tiny_run, tmp_path
):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(config, tiny_store, whole, radiographs=radiographs)
    with pytest.raises(Stopped):
        train(config, tiny_store, broken, radiographs=radiographs, report=stop_at_three)
    train(config, tiny_store, broken, radiographs=radiographs, resume=True)
    one, other = (load_file(run / "model" / "weights.safetensors") for run in (whole, broken))
    assert one
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not any("drr.layers" in name for name in one)  # discriminators are not shipped
    lines = (whole / "metrics.jsonl").read_text()
    assert "val_cycle" in lines
    assert "restoration" in lines
    assert "val_cycle" in (whole / "model" / "card.md").read_text()
    style = load_style(whole / "model")
    plain = reconstruct(views, model=tiny_run / "model", nfe=0)
    styled = reconstruct(views, model=tiny_run / "model", style=style, nfe=0)
    assert not np.array_equal(plain.volume.hu, styled.volume.hu)
    with pytest.raises(ValueError, match="give it to --style"):
        load_model(whole / "model")
    with pytest.raises(ValueError, match="give it to --model"):
        load_style(tiny_run / "model")


def test_micro_batches_give_the_losses_of_a_whole_batch(config, radiographs, tiny_store, tmp_path):
    train(config, tiny_store, tmp_path / "whole", radiographs=radiographs)
    config.write_text(TINY.replace("num_steps = 4", "num_steps = 4\naccumulate = 2"))
    train(config, tiny_store, tmp_path / "parts", radiographs=radiographs)
    whole, parts = (load_file(tmp_path / run / "style.safetensors") for run in ("whole", "parts"))
    moments = [name for name in whole if name.endswith("exp_avg")]
    assert moments
    for name in moments:
        torch.testing.assert_close(parts[name], whole[name], atol=1e-5, rtol=0)


def test_radiographs_are_asked_for_and_belong_to_the_run(
    config, radiographs, tiny_store, tiny_config, tmp_path
):
    with pytest.raises(ValueError, match="give --radiographs"):
        train(config, tiny_store, tmp_path / "run")
    with pytest.raises(ValueError, match="leave --radiographs out"):
        train(tiny_config, tiny_store, tmp_path / "run", radiographs=radiographs)
    with pytest.raises(ValueError, match="no frontal radiographs"):
        train(config, tiny_store, tmp_path / "run", radiographs=tiny_store / "cases")
    train(config, tiny_store, tmp_path / "run", radiographs=radiographs)
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    (fewer / "0.png").write_bytes((radiographs / "0.png").read_bytes())
    with pytest.raises(ValueError, match="begun with another config"):
        train(config, tiny_store, tmp_path / "run", radiographs=fewer, resume=True)


def test_fresh_generators_change_nothing_and_line_integrals_are_left_alone(views):
    config = StyleConfig(
        kind="style", name="fresh", generator=GeneratorConfig(width=4, num_blocks=1)
    )
    fresh = StyleBundle(config, build_style(config), "")
    torch.testing.assert_close(in_drr_style(views, fresh).images, standardized(views.images))
    with torch.no_grad():
        fresh.networks.to_drr.last[-1].bias[0] = 3.0
    assert (in_drr_style(views, fresh).images - standardized(views.images)).mean() == pytest.approx(
        3.0
    )
    measured = drr(phantom(5, size=16).volume, [preset("chest", size=16)])
    assert torch.equal(in_drr_style(measured, fresh).images, measured.images)


def test_an_ap_view_is_shown_to_the_model_like_a_pa_one(views):
    config = StyleConfig(
        kind="style", name="fresh", generator=GeneratorConfig(width=4, num_blocks=1)
    )
    networks = build_style(config)
    with torch.no_grad():
        networks.to_drr.last[-1].weight.normal_(generator=torch.Generator().manual_seed(0))
    style = StyleBundle(config, networks, "")
    turned = replace(
        views,
        images=views.images.flip(-1),
        geometries=(replace(views.geometries[0], primary_angle_deg=180.0),),
    )
    torch.testing.assert_close(
        in_drr_style(turned, style).images, in_drr_style(views, style).images.flip(-1)
    )


def test_radiographs_are_never_mirrored():
    left = torch.zeros(1, 1, 32, 32)
    left[..., :10] = 1.0
    stage = StyleStage(num_steps=1, zoom=0.15)
    for seed in range(20):
        picture = augmented(left, stage, torch.Generator().manual_seed(seed))
        assert picture[..., :5].mean() > picture[..., -5:].mean()


def test_frontal_pictures_are_hung_alike(radiographs):
    run = load_run(Path(__file__).parents[2] / "configs" / "style-64.toml")
    assert isinstance(run, StyleRun)
    pictures = frontal_pictures(radiographs, run.system.views)
    assert pictures.shape == (2, 1, 128, 128)
    assert 0.0 <= pictures.min() <= pictures.max() <= 1.0


def test_a_body_goes_on_where_its_scan_ends():
    bone = torch.full((4, 40, 40), -1000.0)
    bone[:, 10:30, 10:30] = 300.0
    matrix = torch.diag(torch.tensor([8.0, 8.0, 10.0, 1.0], dtype=torch.float64))
    matrix[:3, 3] = torch.tensor([-156.0, -156.0, -15.0])
    body = Body(bone, matrix, torch.zeros(3))
    picture = drr_pictures(body, [preset("chest", size=64)])[0, 0]
    torch.testing.assert_close(picture, picture[32].expand(64, -1), atol=0.02, rtol=0.0)
    assert picture[0].max() > 0.9


def test_each_side_of_least_squares_learns_alone():
    line = torch.nn.Conv2d(1, 1, 1, bias=False)
    torch.nn.init.constant_(line.weight, 0.5)
    made = torch.full((1, 1, 1, 1), 1.0, requires_grad=True)
    fooling, telling = least_squares(line, made, torch.full((1, 1, 1, 1), 2.0))
    assert fooling.item() == pytest.approx(0.25)
    assert telling.item() == pytest.approx(0.25)  # 0 for the true picture, 0.25 for the made one
    (fooling + telling).backward()
    assert made.grad is not None
    assert made.grad.item() == pytest.approx(2 * 0.5 * (0.5 - 1.0))
    assert line.weight.grad.item() == pytest.approx(2 * 0.5)


def test_the_terms_of_a_style_model_count_as_the_config_says():
    """Generators that add 1 and 2 to gray, a discriminator that says the mean of a picture."""

    class Adds(torch.nn.Module):
        def __init__(self, value):
            super().__init__()
            self.value = torch.nn.Parameter(torch.tensor(value))

        def forward(self, picture):
            return picture + self.value

    class Means(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = torch.nn.Parameter(torch.tensor(1.0))

        def forward(self, picture):
            return self.gain * picture.mean(dim=(1, 2, 3))

    modules = torch.nn.ModuleDict(
        {"to_drr": Adds(1.0), "to_radiograph": Adds(2.0), "drr": Means(), "radiograph": Means()}
    )
    radiographs, drrs = torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), 0.5)
    weights = {"adversarial_weight": 0.5, "cycle_weight": 3.0, "identity_weight": 7.0}
    loss, figures = style_losses(modules, radiographs, drrs, StyleStage(num_steps=1, **weights))
    assert figures["cycle"] == pytest.approx(3.0 + 3.0)  # there and back adds 3, both ways
    assert figures["identity"] == pytest.approx(1.0 + 2.0)
    # Made DRRs have mean 1, made radiographs 2.5; wanted is 1 of the made ones, then 1 and 0.
    assert figures["fooling"] == pytest.approx(0.0 + 1.5**2)
    assert figures["telling"] == pytest.approx((0.5**2 + 1.0) + (1.0 + 2.5**2))
    told = 0.5 * figures["fooling"] + figures["telling"]
    assert loss.item() == pytest.approx(told + 3.0 * 6.0 + 7.0 * 3.0)
    loss.backward()
    # Cycle and identity move both generators by one for each unit, identity by its weight again.
    assert modules["to_drr"].value.grad.item() == pytest.approx(3.0 * 2.0 + 7.0)
    assert modules["to_radiograph"].value.grad.item() == pytest.approx(3.0 * 2.0 + 7.0 + 0.5 * 3.0)


@pytest.mark.parametrize(
    ("curve", "wanted"),
    [((2.0, 0.0, 0.0), 5.0), ((0.0, 1.0, 0.0), 6.0), ((0.0, 0.0, 1.0), 12.0)],
)
def test_a_generator_lifts_stretches_and_bends_the_gray_curve(curve, wanted):
    generator = Generator(GeneratorConfig(width=4, num_blocks=1))
    with torch.no_grad():
        generator.last[-1].bias.copy_(torch.tensor(curve))
        picture = torch.full((1, 1, 32, 64), 3.0)
        torch.testing.assert_close(generator(picture), torch.full_like(picture, wanted))


def test_a_generator_draws_nothing_smaller_than_a_cell():
    config = GeneratorConfig(width=4, num_blocks=1, pooling=8, num_halvings=0)
    generator = Generator(config)
    with torch.no_grad():
        generator.last[-1].weight.normal_(generator=torch.Generator().manual_seed(0))
        generator.last[-1].weight[1:] = 0.0  # leaves what is added
        picture = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(1))
        added = (generator(picture) - picture)[0, 0]
    assert added.std() > 0.01
    # From a cell's middle (row 3.5) to the next one's, rows lie on a line.
    torch.testing.assert_close(added[7:-4:8], (added[4:-4:8] + added[10:-4:8]) / 2.0)


def test_views_of_any_size_keep_it(views):
    config = StyleConfig(
        kind="style", name="fresh", generator=GeneratorConfig(width=4, num_blocks=1)
    )
    geometry = replace(views.geometries[0], num_rows=50, num_cols=39)
    odd = replace(views, images=views.images[..., :50, :39], geometries=(geometry,))
    same = in_drr_style(odd, StyleBundle(config, build_style(config), ""))
    torch.testing.assert_close(same.images, standardized(odd.images))


def test_training_sees_less_than_the_held_out_display_style():
    run = load_run(Path(__file__).parents[2] / "configs" / "style-64.toml")
    assert isinstance(run, StyleRun)
    for stage in (run.training.style, StyleStage(num_steps=1)):
        assert GAMMA[0] < stage.gamma[0] < stage.gamma[1] < GAMMA[1]
        assert stage.window_cut < WINDOW_CUT
        assert stage.collimation < COLLIMATION


def test_another_display_changes_window_curve_and_field_and_none_changes_nothing(views):
    picture = display_style(views.images)
    same = StyleStage(num_steps=1, gamma=(1.0, 1.0), window_cut=0.0, collimation=0.0)
    generator = torch.Generator().manual_seed(0)
    torch.testing.assert_close(
        redisplayed(picture, same, generator), standardized(picture), atol=0.03, rtol=0.0
    )
    for change in ({"gamma": (0.5, 0.5)}, {"window_cut": 0.4}, {"collimation": 0.4}):
        other = redisplayed(picture, replace(same, **change), generator)
        assert (other - standardized(picture)).abs().mean() > 0.03, change
    covered = redisplayed(picture, replace(same, collimation=0.4), generator)
    assert torch.equal(covered[..., 0, :], covered[..., 1, :])


def test_a_style_stage_refuses_nonsense():
    for change in ({"num_displays": 0}, {"collimation": 0.5}, {"gamma": (2.0, 1.0)}):
        with pytest.raises(ValueError, match=next(iter(change))):
            StyleStage(num_steps=1, **change)
    with pytest.raises(ValueError, match="pooling"):
        GeneratorConfig(pooling=0)
    with pytest.raises(ValueError, match="num_halvings"):
        GeneratorConfig(num_halvings=5)
