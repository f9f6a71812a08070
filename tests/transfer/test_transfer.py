"""Pre-training and fine-tuning: what is damaged, what moves together, and runs that go on."""

import sys

import numpy as np
import pytest
import torch

from fewview.data.images import read_labels, write_volume
from fewview.data.volume import Volume, cubic_grid
from fewview.inputs import GridConfig
from fewview.training.processes import join
from fewview.transfer.pretrain import (
    DamageConfig,
    PretrainingStage,
    damaged,
    from_cubes,
    pretrain,
    to_cubes,
)
from fewview.transfer.segment import (
    Example,
    FinetuningStage,
    dice_loss,
    finetune,
    write_segmentation,
)
from fewview.transfer.segmenter import (
    SegResNetConfig,
    SwinUnetrConfig,
    build_segmenter,
    replace_head,
)
from fewview.transfer.setting import (
    MovementConfig,
    Setting,
    UnitVolumes,
    moved,
    moved_classes,
    movement,
)

NETWORK = SegResNetConfig(blocks_down=(1, 1), blocks_up=(1,))
GRID = GridConfig(size=16)
SEEDED = torch.Generator


def setting(seed=0):
    return Setting(GRID, NETWORK.reduction, seed, "float32", join("cpu"))


def noise(seed=0):
    return 2.0 * torch.rand(1, 16, 16, 16, generator=SEEDED().manual_seed(seed)) - 1.0


def ball():
    """Dense in air, and the class of its voxels."""
    axis = torch.linspace(-1, 1, 16)
    inside = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2 < 0.4
    matrix = cubic_grid(np.zeros(3), size=16, extent_mm=400.0).voxel_to_patient
    return Example("ball", inside.float()[None] - 1.0, inside.to(torch.uint8), matrix)


@pytest.fixture
def volumes(tmp_path):
    paths = [tmp_path / f"{index}.nii.gz" for index in range(2)]
    for index, path in enumerate(paths):
        matrix = cubic_grid(np.zeros(3), size=16, extent_mm=400.0).voxel_to_patient
        write_volume(Volume(GRID.to_hu(noise(index)[0]).numpy(), matrix), path)
    return UnitVolumes(paths, GRID)


def test_cubes_make_the_volume_they_were_cut_from():
    torch.testing.assert_close(from_cubes(to_cubes(noise(), 4), noise()), noise(), rtol=0, atol=0)
    assert to_cubes(noise(), 4)[1].reshape(4, 4, 4).equal(noise()[0, :4, :4, 4:8])


def test_shuffling_moves_voxels_inside_their_cube_only():
    config = DamageConfig(shuffle_share=1.0, shuffled_cubes=0.5, masked_cubes=(0.0, 0.0))
    broken = damaged(noise(), config, SEEDED().manual_seed(3))
    before, after = to_cubes(noise(), 4), to_cubes(broken, 4)
    assert before.sort(dim=1).values.equal(after.sort(dim=1).values)
    assert 0.3 < (before != after).any(dim=1).float().mean() < 0.7


def test_masking_replaces_its_share_of_cubes_and_nothing_else():
    config = DamageConfig(shuffle_share=0.0, mask_edge=4, masked_cubes=(0.25, 0.25))
    broken = damaged(noise(), config, SEEDED().manual_seed(3))
    changed = to_cubes(noise(), 4) != to_cubes(broken, 4)
    assert changed.all(dim=1).sum() == changed.any(dim=1).sum() == 16
    assert broken.abs().max() <= 1.0


def test_the_same_draws_do_the_same_damage_and_others_another():
    first, again, other = (
        damaged(noise(), DamageConfig(), SEEDED().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert first.equal(again)
    assert not first.equal(other)


def test_no_movement_changes_nothing():
    affine = movement(MovementConfig(rotate_deg=0.0, scale=0.0, shift=0.0), SEEDED())
    torch.testing.assert_close(moved(noise(), affine), noise())
    classes = ball().classes.float()
    assert moved_classes(classes, affine).equal(classes)


def test_a_ct_and_its_classes_move_together_and_air_comes_in():
    affine = movement(MovementConfig(rotate_deg=30.0, shift=0.2), SEEDED().manual_seed(5))
    unit = moved(ball().unit, affine)
    classes = moved_classes(ball().classes.float(), affine)
    dense = (unit[0] > -0.5).float()
    assert (dense == classes).float().mean() > 0.97
    assert 2.0 * (dense * classes).sum() / (dense.sum() + classes.sum()) > 0.9
    assert not classes.equal(ball().classes.float())
    assert unit.min() == -1.0


def test_the_dice_loss_is_that_of_monai():
    from monai.losses.dice import DiceLoss

    generator = SEEDED().manual_seed(0)
    logits = torch.randn(2, 4, 5, 6, 7, generator=generator)
    truth = torch.randint(3, (2, 5, 6, 7), generator=generator)  # class 3 is nowhere
    reference = DiceLoss(include_background=False, to_onehot_y=True, softmax=True)
    torch.testing.assert_close(dice_loss(logits, truth), reference(logits, truth[:, None]))


def test_only_the_head_is_fresh_after_pre_training():
    torch.manual_seed(0)
    pretrained = build_segmenter(NETWORK, out_channels=1).state_dict()
    network = build_segmenter(NETWORK, out_channels=3)
    fresh = {name: value.clone() for name, value in network.state_dict().items()}
    replace_head(NETWORK, network, pretrained)
    own = network.state_dict()
    kept = {name for name in own if own[name].equal(fresh[name])}
    taken = {name for name in own if name in pretrained and own[name].equal(pretrained[name])}
    assert set(own) - taken == {"conv_final.2.conv.weight", "conv_final.2.conv.bias"} <= kept


@pytest.mark.slow
def test_the_head_of_the_transformer_is_its_last_layer():
    config = SwinUnetrConfig(kind="swinunetr", feature_size=12)
    pretrained = build_segmenter(config, out_channels=1).state_dict()
    network = build_segmenter(config, out_channels=3)
    replace_head(config, network, pretrained)
    own = network.state_dict()
    differing = {name for name in own if own[name].shape != pretrained[name].shape}
    assert differing == {"out.conv.conv.weight", "out.conv.conv.bias"}
    same = {name for name in own if name not in differing and own[name].equal(pretrained[name])}
    assert same == set(own) - differing


def test_weights_of_another_network_are_refused():
    other = SegResNetConfig(blocks_down=(1, 2), blocks_up=(1,))
    weights = build_segmenter(other, out_channels=1).state_dict()
    with pytest.raises(ValueError, match="of another network"):
        replace_head(NETWORK, build_segmenter(NETWORK, out_channels=3), weights)


@pytest.mark.parametrize("missing", ["monai", "einops"])
def test_without_monai_one_line_says_what_to_install(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ValueError, match=r"pip install 'fewview\[segmentation\]'"):
        build_segmenter(NETWORK, out_channels=2)


def pretrained_for(num_steps, volumes, out):
    torch.manual_seed(0)
    network = build_segmenter(NETWORK, out_channels=1)
    config = PretrainingStage(
        num_steps=num_steps, batch_size=2, save_every=1, damage=DamageConfig(mask_edge=4)
    )
    pretrain(config, network, volumes, setting(), out, report=lambda *_: None)
    return network.state_dict()


def test_pre_training_of_2_and_2_resumed_steps_equals_4(volumes, tmp_path):
    whole = pretrained_for(4, volumes, tmp_path / "whole")
    pretrained_for(2, volumes, tmp_path / "parts")
    resumed = pretrained_for(4, volumes, tmp_path / "parts")
    assert all(whole[name].equal(resumed[name]) for name in whole)


def test_pre_training_refuses_cubes_that_do_not_fill_the_grid(volumes, tmp_path):
    config = PretrainingStage(num_steps=1, damage=DamageConfig(mask_edge=5))
    with pytest.raises(ValueError, match="5 voxels do not fill a grid of 16"):
        pretrain(config, torch.nn.Identity(), volumes, setting(), tmp_path, report=print)


def finetuned_for(num_steps, out, **changes):
    torch.manual_seed(0)
    network = build_segmenter(NETWORK, out_channels=2)
    config = FinetuningStage(num_steps=num_steps, batch_size=2, save_every=1, **changes)
    finetune(config, network, [ball()], setting(), out, report=lambda *_: None)
    return network


def test_fine_tuning_of_2_and_2_resumed_steps_equals_4(tmp_path):
    whole = finetuned_for(4, tmp_path / "whole").state_dict()
    finetuned_for(2, tmp_path / "parts")
    resumed = finetuned_for(4, tmp_path / "parts").state_dict()
    assert all(whole[name].equal(resumed[name]) for name in whole)


def test_a_network_learns_to_segment_and_its_map_lies_where_the_ct_lies(tmp_path):
    network = finetuned_for(40, tmp_path, learning_rate=5e-3, warmup_steps=5, ema_decay=0.8)
    write_segmentation(network, ball(), setting(), tmp_path / "ball.nii.gz")
    classes, matrix = read_labels(tmp_path / "ball.nii.gz")
    np.testing.assert_allclose(matrix, ball().voxel_to_patient, atol=1e-4)
    truth = ball().classes.numpy()
    assert 2 * (classes * truth).sum() / (classes.sum() + truth.sum()) > 0.95


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (
            lambda: FinetuningStage(num_steps=1, dice_weight=0.0, cross_entropy_weight=0.0),
            "not both 0",
        ),
        (lambda: FinetuningStage(num_steps=1, checkpointing=True), "checkpointing is not there"),
        (lambda: PretrainingStage(num_steps=1, checkpointing=True), "checkpointing is not there"),
        (lambda: DamageConfig(masked_cubes=(0.5, 0.2)), "masked_cubes must be a range"),
        (lambda: MovementConfig(scale=1.0), "0 <= scale < 1"),
        (lambda: SegResNetConfig(width=12), "multiple of 8"),
        (lambda: SegResNetConfig(blocks_up=(1,)), "one level less"),
    ],
)
def test_settings_that_cannot_be_are_refused(build, why):
    with pytest.raises(ValueError, match=why):
        build()
