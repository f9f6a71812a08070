"""What stage 1 may ask of a restored volume beside its mean absolute error.

Functions of volumes only; which of them count, and how much, is in `AutoencoderStage`.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from fewview.models.random_features import RandomFeatures

Volume = Float[Tensor, "batch 1 depth height width"]
VolumeOrSlice = Float[Tensor, "batch 1 *size"]

SLAB = 8
"""Slices of a slab: as many as the three halvings of the features leave one of."""

LARGEST_WEIGHT = 1e4
SMALLEST_GRADIENT = 1e-4
SMALLEST_ENERGY = 1e-6
"""Of detail, in squared units of a volume in [-1, 1]: about 1 HU in a window of 2500."""


def frequency_bands(volume: Volume, cutoff: float) -> tuple[Volume, Volume]:
    """A volume as its low and its high spatial frequencies, which add up to it.

    Frequencies count in all directions alike. The transform takes the volume for periodic, so a
    step between opposite faces belongs to the high band.

    Args:
        volume: Any volume; of the difference of two volumes the bands are the differences.
        cutoff: Radius between the bands, in cycles per voxel; 0.5 is the finest along an axis.
    """
    sizes = volume.shape[2:]
    axes = [torch.fft.fftfreq(size, device=volume.device) for size in sizes[:2]]
    axes.append(torch.fft.rfftfreq(sizes[2], device=volume.device))
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    kept = (z.square() + y.square() + x.square()).sqrt() <= cutoff
    spectrum = torch.fft.rfftn(volume.float(), dim=(2, 3, 4))
    low = torch.fft.irfftn(spectrum * kept, s=sizes, dim=(2, 3, 4))
    return low, volume - low


def feature_distance(features: RandomFeatures, first: Volume, second: Volume) -> Float[Tensor, ""]:
    """Squared distance in the features of each layer, mean over positions, summed; at most 6.

    References:
        Zhang et al. (2018), LPIPS, equation 1, with w = 1.
    """
    pairs = zip(features(first), features(second), strict=True)
    layers = [(one - other).square().sum(dim=1).mean() for one, other in pairs]
    return torch.stack(layers).sum()


def random_plane(size: int, generator: torch.Generator) -> tuple[int, int]:
    """An axis of a cube of `size` voxels and an index along it, all equally likely."""
    axis, index = (int(torch.randint(end, (), generator=generator)) for end in (3, size))
    return axis, index


def slabs(
    volume: Volume, planes: list[tuple[int, int]], thickness: int
) -> Float[Tensor, "batch 1 thickness size size"]:
    """Of each cube some slices from a plane on, across its axis; as many as fit at its end."""
    cut = [
        one.narrow(1 + axis, min(index, one.shape[1 + axis] - thickness), thickness).movedim(
            1 + axis, 1
        )
        for one, (axis, index) in zip(volume, planes, strict=True)
    ]
    return torch.stack(cut)


def sharpness_error(restored: Volume, target: Volume) -> Float[Tensor, ""]:
    """How far the local strength of detail is from the target's, wherever the detail lies.

    Detail is what a 3^3 mean removes; its strength is the root of the mean square over 4^3 voxels.
    The mean absolute error wants faint detail left out where its place is uncertain; this wants as
    much of it as there is. Together they ask for the likeliest detail at its full strength.
    """
    strengths = []
    for volume in (restored.float(), target.float()):
        mean = F.avg_pool3d(F.pad(volume, (1,) * 6, mode="replicate"), 3, stride=1)
        energy = F.avg_pool3d((volume - mean).square(), 4, stride=2)
        strengths.append((energy + SMALLEST_ENERGY).sqrt())
    return (strengths[0] - strengths[1]).abs().mean()


def hinge_losses(
    discriminator: nn.Module, restored: VolumeOrSlice, target: VolumeOrSlice
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Losses of the autoencoder (fooling) and of the discriminator (telling), for one backward.

    The first holds the discriminator's weights fixed, the second the restored volume: their sum
    gives each network its own gradients alone.

    References:
        Lim and Ye (2017), equations 14 and 15; the factor 0.5 as in Esser et al. (2021), VQGAN.
    """
    fixed = discriminator.state_dict()  # detached from the weights
    fooling = -functional_call(discriminator, fixed, (restored,)).mean()
    true, made = discriminator(target), discriminator(restored.detach())
    telling = 0.5 * (torch.relu(1.0 - true).mean() + torch.relu(1.0 + made).mean())
    return fooling, telling


def adaptive_weight(
    l1: Float[Tensor, ""], fooling: Float[Tensor, ""], last_weight: Tensor
) -> Float[Tensor, ""]:
    """The factor that gives fooling as large a gradient as the L1 at the last convolution.

    References:
        Esser et al. (2021), VQGAN, equation 7.
    """
    wanted, found = (
        torch.autograd.grad(loss, last_weight, retain_graph=True)[0].norm()
        for loss in (l1, fooling)
    )
    return (wanted / (found + SMALLEST_GRADIENT)).clamp(max=LARGEST_WEIGHT).detach()
