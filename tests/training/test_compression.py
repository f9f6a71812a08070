"""Stage 1: its losses, and that each counts as the config says."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from fewview.models.discriminator import DiscriminatorConfig, PatchDiscriminator
from fewview.models.random_features import RandomFeatures
from fewview.models.vgg_features import VggFeatures
from fewview.system import build_networks
from fewview.training import train
from fewview.training.autoencoder import _restoration
from fewview.training.compression import (
    adaptive_weight,
    feature_distance,
    fooling_loss,
    frequency_bands,
    pulls,
    random_plane,
    sharpness_error,
    slabs,
    telling_loss,
)
from fewview.training.config import load_run
from fewview.training.system_config import AutoencoderStage

START = "[training.autoencoder]\n"
GAN = "discriminator_weight = 0.5\ndiscriminator_start = 2\n"
SMALL = "[training.autoencoder.discriminator]\nwidth = 4\nnum_strided = 1\n"


def with_gan(text: str) -> str:
    return text.replace(START, START + GAN).replace(
        "[training.alignment]", SMALL + "[training.alignment]"
    )


def lines_of(run) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


def wave(cycles: int, axis: int, size: int = 16) -> torch.Tensor:
    """A cosine with this many cycles along one axis of a cube."""
    values = torch.cos(2 * torch.pi * cycles * torch.arange(size) / size)
    shape = [1, 1, 1, 1, 1]
    shape[axis] = size
    return values.reshape(shape).expand(1, 1, size, size, size)


def test_a_slab_is_cut_across_each_volumes_own_axis_and_ends_at_the_last_slice():
    volume = torch.randn(2, 1, 8, 8, 8)
    cut = slabs(volume, [(1, 3), (2, 7)], 4)
    torch.testing.assert_close(cut[0, 0], volume[0, 0, :, 3:7].movedim(1, 0))
    torch.testing.assert_close(cut[1, 0], volume[1, 0, :, :, 4:].movedim(2, 0))


def test_the_perceptual_distance_of_a_slab_sees_the_slab_alone():
    config = AutoencoderStage(num_steps=1, slab_perceptual_weight=1.0)
    target = torch.rand(1, 1, 16, 16, 16)
    restored = target.clone()
    restored[:, :, :, :8] = 0.0
    seen = [
        _restoration(config, RandomFeatures(), restored, target, [plane])[1]["slab_perceptual"]
        for plane in ((1, 8), (1, 0), (0, 8))
    ]
    assert seen[0] == 0.0
    assert min(seen[1:]) > 0.01


def test_planes_lie_across_all_axes_and_anywhere():
    generator = torch.Generator().manual_seed(0)
    drawn = [random_plane(4, generator) for _ in range(200)]
    assert set(drawn) == {(axis, index) for axis in range(3) for index in range(4)}


@pytest.mark.parametrize("axis", [2, 3, 4])
def test_a_wave_is_in_one_band_whatever_its_axis(axis):
    slow, fast = wave(2, axis), wave(4, axis)  # 0.125 and 0.25 cycles per voxel
    low, high = frequency_bands(slow + fast, 0.2)
    torch.testing.assert_close(low, slow.contiguous(), atol=1e-5, rtol=0)
    torch.testing.assert_close(high, fast.contiguous(), atol=1e-5, rtol=0)


def test_a_diagonal_wave_is_as_high_as_its_length_says():
    diagonal = wave(3, 2) * wave(3, 3)  # 0.19 along two axes: 0.27 across
    low, _ = frequency_bands(diagonal, 0.25)
    assert low.abs().max() < 1e-5


def test_the_bands_of_an_odd_grid_add_up_to_the_volume():
    volume = torch.randn(2, 1, 5, 6, 7)
    low, high = frequency_bands(volume, 0.15)
    torch.testing.assert_close(low + high, volume)


def test_sharpness_asks_for_detail_as_strong_as_the_truths_and_not_for_its_place():
    detail = wave(4, 2)  # four voxels long: the blur leaves a half, the mean over five -0.2
    smooth = torch.zeros_like(detail)
    assert sharpness_error(-detail, detail) < 1e-6
    assert sharpness_error(smooth + 0.3, smooth) < 1e-6
    wanted = 0.5 * 0.7 / 2**0.5
    assert sharpness_error(0.5 * detail, detail) == pytest.approx(wanted, rel=0.1)


def test_stripes_from_voxel_to_voxel_are_no_detail():
    stripes = wave(8, 3)
    assert sharpness_error(stripes, torch.zeros_like(stripes)) < 0.2 * stripes.std()


def test_sharpness_of_a_smooth_volume_has_a_gradient_that_is_finite():
    smooth = torch.zeros(1, 1, 8, 8, 8, requires_grad=True)
    sharpness_error(smooth, wave(4, 2, size=8)).backward()
    assert smooth.grad.isfinite().all()


def test_features_see_what_blur_takes_and_not_what_is_equal():
    torch.manual_seed(0)
    volume, network = torch.randn(1, 1, 16, 16, 16), RandomFeatures()
    blurred = torch.nn.functional.avg_pool3d(volume, 3, 1, 1)
    assert feature_distance(network, volume, volume) == 0.0
    assert 0.1 < feature_distance(network, blurred, volume) < 6.0
    assert not list(network.parameters())
    assert not network.state_dict()


def test_the_features_are_the_same_in_every_run_and_pass_gradients():
    volume = torch.randn(1, 1, 8, 8, 8)
    other = torch.randn(1, 1, 8, 8, 8, requires_grad=True)
    distance, again = (feature_distance(RandomFeatures(), other, volume) for _ in "ab")
    assert distance == again
    distance.backward()
    assert other.grad is not None
    assert other.grad.abs().max() > 0


def test_hinge_losses_stop_at_the_margin_and_keep_gradients_apart():
    line = torch.nn.Conv3d(1, 1, 1, bias=False)  # logits that are half the volume
    torch.nn.init.constant_(line.weight, 0.5)
    made = torch.full((1, 1, 1, 1, 1), 1.0, requires_grad=True)
    true = torch.full((1, 1, 1, 1, 1), 4.0)  # a logit of 2: beyond the margin, so without loss
    fooling, telling = fooling_loss(line, made), telling_loss(line, made, true)
    assert fooling.item() == -0.5
    assert telling.item() == pytest.approx(0.5 * (0.0 + 1.5))
    (fooling + telling).backward()
    assert made.grad.item() == -0.5  # from fooling alone
    assert line.weight.grad.item() == 0.5  # from telling alone: half of the made volume


def test_the_adaptive_weight_makes_both_gradients_equal_at_the_last_layer():
    last = torch.nn.Parameter(torch.randn(4))
    l1, fooling = 3.0 * (last * torch.ones(4)).sum(), (last * torch.arange(4)).sum()
    weight = adaptive_weight(pulls(l1, fooling, last))
    assert not weight.requires_grad
    pair = [torch.autograd.grad(loss, last)[0].norm() for loss in (l1, weight * fooling)]
    torch.testing.assert_close(pair[1], pair[0], rtol=1e-3, atol=0)


def test_the_adaptive_weight_is_bounded():
    last = torch.nn.Parameter(torch.ones(1))
    assert adaptive_weight(pulls(1e9 * last.sum(), 0.0 * last.sum(), last)) == 1e4


def test_a_volume_is_judged_alone_whatever_lies_beside_it_in_the_batch():
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(DiscriminatorConfig(width=4), 1)
    volumes = torch.randn(2, 1, 16, 16, 16)
    torch.testing.assert_close(discriminator(volumes)[:1], discriminator(volumes[:1]))


@pytest.mark.parametrize(
    ("key", "figure"),
    [
        ("low_frequency_weight", "low_frequency_l1"),
        ("high_frequency_weight", "high_frequency_l1"),
        ("sharpness_weight", "sharpness"),
        ("perceptual_weight", "perceptual"),
    ],
)
def test_a_term_counts_as_much_as_the_config_says(key, figure, tiny_config, tiny_store, tmp_path):
    tiny_config.write_text(tiny_config.read_text().replace(START, START + f"{key} = 2.0\n"))
    train(tiny_config, tiny_store, tmp_path / "run", stage="autoencoder")
    first = lines_of(tmp_path / "run")[0]
    expected = first["l1"] + 1e-4 * first["kl"] + 2.0 * first[figure]
    assert first["loss"] == pytest.approx(expected, rel=1e-4)


@pytest.fixture
def vgg_file(tmp_path):
    """Three convolutions of a VGG network, halved after the second."""
    generator, weights = torch.Generator().manual_seed(0), {}
    for place, (before, after) in {0: (3, 4), 2: (4, 4), 5: (4, 6)}.items():
        shape = (after, before, 3, 3)
        weights[f"features.{place}.weight"] = torch.randn(*shape, generator=generator) / 5.0
        weights[f"features.{place}.bias"] = torch.randn(after, generator=generator) / 5.0
    weights["classifier.0.weight"] = torch.zeros(2, 2)
    save_file(weights, tmp_path / "vgg.safetensors")
    return tmp_path / "vgg.safetensors"


def test_features_of_a_vgg_file_are_those_of_its_layers(vgg_file):
    layers = [torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU()]
    layers += [torch.nn.Conv2d(4, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
    plain = torch.nn.Sequential(*layers, torch.nn.Conv2d(4, 6, 3, padding=1), torch.nn.ReLU())
    stored = {name: value for name, value in load_file(vgg_file).items() if "features" in name}
    plain.load_state_dict({name.removeprefix("features."): value for name, value in stored.items()})
    image = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(1)) * 2.0 - 1.0
    colors = ((image + 1.0) / 2.0).expand(-1, 3, -1, -1)
    mean, spread = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    colors = (colors - mean[:, None, None]) / spread[:, None, None]
    features = VggFeatures(vgg_file)(image)
    for found, wanted in zip(features, (plain[:4](colors), plain(colors)), strict=True):
        torch.testing.assert_close(found, torch.nn.functional.normalize(wanted, dim=1))


@pytest.mark.parametrize(
    ("weights", "why"),
    [
        ({"other": torch.zeros(1)}, "not the weights of a VGG network"),
        ({"features.0.weight": torch.zeros(4, 1, 3, 3), "features.0.bias": torch.zeros(4)}, "VGG"),
        ({"features.0.weight": torch.zeros(4, 3, 3, 3)}, "no convolution with a bias"),
    ],
)
def test_a_file_of_other_weights_is_refused(tmp_path, weights, why):
    save_file(weights, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=why):
        VggFeatures(tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("nothing")
    with pytest.raises(ValueError, match="no safetensors file"):
        VggFeatures(tmp_path / "text.safetensors")


def test_a_slice_in_vgg_features_counts_as_the_config_says(
    vgg_file, tiny_config, tiny_store, tmp_path
):
    asked = f'slice_perceptual_weight = 2.0\nslice_perceptual_file = "{vgg_file}"\n'
    tiny_config.write_text(tiny_config.read_text().replace(START, START + asked))
    train(tiny_config, tiny_store, tmp_path / "run", stage="autoencoder")
    first = lines_of(tmp_path / "run")[0]
    assert first["slice_perceptual"] > 0.0
    expected = first["l1"] + 1e-4 * first["kl"] + 2.0 * first["slice_perceptual"]
    assert first["loss"] == pytest.approx(expected, rel=1e-4)


def test_the_discriminator_waits_for_its_batch_and_then_counts(tiny_config, tiny_store, tmp_path):
    plain = tiny_config.read_text()
    train(tiny_config, tiny_store, tmp_path / "plain", stage="autoencoder")
    tiny_config.write_text(with_gan(plain))
    train(tiny_config, tiny_store, tmp_path / "gan", stage="autoencoder")
    before, after = lines_of(tmp_path / "plain"), lines_of(tmp_path / "gan")
    assert before[:2] == [
        {**line, "seconds": old["seconds"]} for line, old in zip(after[:2], before, strict=False)
    ]
    assert "fooling" not in after[1]
    third = after[2]
    expected = third["l1"] + 1e-4 * third["kl"] + third["telling"]
    expected += 0.5 * third["fooling_weight"] * third["fooling"]
    assert third["loss"] == pytest.approx(expected, rel=1e-4)
    moments = load_file(tmp_path / "gan" / "autoencoder.safetensors")
    assert any(name.startswith("module.discriminator") for name in moments)


def test_micro_batches_weigh_the_discriminator_as_the_whole_batch_does(
    tiny_config, tiny_store, tmp_path
):
    text = with_gan(tiny_config.read_text()).replace("discriminator_start = 2\n", "")
    found = []
    for accumulate in (1, 2, 4):
        more = f"batch_size = 4\naccumulate = {accumulate}\n"
        tiny_config.write_text(text.replace("batch_size = 2\n", more, 1))
        train(tiny_config, tiny_store, tmp_path / str(accumulate), stage="autoencoder")
        found.append([line for line in lines_of(tmp_path / str(accumulate)) if "loss" in line])
    for key in ("loss", "fooling_weight", "fooling", "telling"):
        whole, halves, quarters = ([line[key] for line in lines] for lines in found)
        assert len(whole) == 4
        # Figures are logged with six digits, so that one unit of the last is more than 1e-5 of 1.
        assert halves == pytest.approx(whole, rel=1e-5, abs=1e-5)
        assert quarters == pytest.approx(whole, rel=1e-5, abs=1e-5)


class Stopped(Exception):
    """Stands for a kill."""


def stop_at_three(_stage: str, done: int, _steps: int, _shown: str) -> None:
    if done == 3:
        raise Stopped


def test_an_adversarial_run_resumes_exactly_and_its_model_has_no_discriminator(
    tiny_config, tiny_store, tmp_path
):
    tiny_config.write_text(with_gan(tiny_config.read_text()))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(tiny_config, tiny_store, whole)
    with pytest.raises(Stopped):
        train(tiny_config, tiny_store, broken, report=stop_at_three)
    train(tiny_config, tiny_store, broken, resume=True)
    one, other = (load_file(run / "autoencoder.safetensors") for run in (whole, broken))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    model = load_file(whole / "model" / "weights.safetensors")
    assert not any("discriminator" in name for name in model)


@pytest.mark.parametrize(
    "settings",
    [
        {"perceptual_weight": -1.0},
        {"sharpness_weight": -1.0},
        {"frequency_cutoff": 0.5},
        {"discriminator_start": -1},
        {"slice_perceptual_weight": -1.0},
        {"slice_perceptual_weight": 1.0},
        {"slice_perceptual_file": "vgg.safetensors"},
    ],
)
def test_a_stage_that_cannot_train_is_refused(settings):
    with pytest.raises(ValueError, match=r"must|go together"):
        AutoencoderStage(num_steps=1, **settings)


def test_a_decoder_alone_learns_what_the_encoder_says_already(tiny_config, tiny_store, tmp_path):
    tiny_config.write_text(tiny_config.read_text().replace(START, START + "decoder_only = true\n"))
    train(tiny_config, tiny_store, tmp_path / "run", stage="autoencoder")
    weights = load_file(tmp_path / "run" / "autoencoder.safetensors")
    torch.manual_seed(load_run(tiny_config).training.seed)
    fresh = build_networks(load_run(tiny_config).system).autoencoder.state_dict()
    moved = {
        name.split(".")[0]
        for name, value in fresh.items()
        if not torch.equal(value, weights[f"module.autoencoder.{name}"])
    }
    assert moved == {"decoder"}
