"""A system is built of the parts that its config names, and refuses parts that do not fit."""

import pytest

from fewview import config
from fewview.system import SystemConfig, build_networks

CLSDM = """
name = "tiny"
diffusion_target = "latent"
condition = "views"
[grid]
size = 16
[autoencoder]
kind = "ldm"
width = 8
multipliers = [1, 1, 1]
num_blocks = 1
[view_encoder]
kind = "replicate"
width = 4
reduction = 4
[denoiser]
kind = "unet"
width = 8
multipliers = [1, 1]
attention_levels = [1]
num_blocks = 1
"""


def test_every_part_is_built_by_its_kind_and_by_todays_without_one():
    system = config.parse(CLSDM, SystemConfig)
    names = [type(part).__name__ for part in build_networks(system).modules().values()]
    assert names == ["LdmAutoencoder", "ReplicateEncoder", "Projector", "UnetDenoiser"]
    old = 'name = "old"\n[autoencoder]\nwidth = 8\n[view_encoder]\nwidth = 8\n[denoiser]\nwidth = 8'
    names = [
        type(part).__name__
        for part in build_networks(config.parse(old, SystemConfig)).modules().values()
    ]
    assert names == ["Autoencoder", "ViewEncoder", "Projector", "Denoiser"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("multipliers = [1, 1, 1]\nnum", "multipliers = [1, 1]\nnum", "1/2 .* 1/4 .* must agree"),
        ("multipliers = [1, 1]\natt", "multipliers = [1, 1, 1, 1]\natt", "grid.size .* of 32"),
        ("[denoiser]", "detail_channels = 4\n[denoiser]", "view_encoder.detail_channels"),
        ("[view_encoder]", "num_levels = 3\n[view_encoder]", "autoencoder.num_levels"),
        ('"ldm"\nwidth = 8', '"ldm"\nwidth = "8"', "autoencoder.ldm.width: "),
    ],
)
def test_parts_that_do_not_fit_are_refused_in_one_line(old, new, message):
    assert old in CLSDM
    with pytest.raises(ValueError, match=message) as caught:
        config.parse(CLSDM.replace(old, new, 1), SystemConfig)
    assert "\n" not in str(caught.value)
