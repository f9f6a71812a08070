"""What stage 1 may ask of a restored volume beside its mean absolute error.

Functions of volumes only; which of them count, and how much, is in `AutoencoderStage`.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from fewview.models.random_features import RandomFeatures
from fewview.models.vgg_features import VggFeatures

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


def feature_distance(
    features: RandomFeatures | VggFeatures, first: VolumeOrSlice, second: VolumeOrSlice
) -> Float[Tensor, ""]:
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

    Detail is the band between a blur over three voxels and a mean over five, which leaves out what
    changes from voxel to voxel: a decoder could otherwise pay with stripes. Its strength is the
    root of the mean square over 4^3 voxels. The mean absolute error wants faint detail left out
    where its place is uncertain; this wants as much of it as there is.
    """
    strengths = []
    for volume in (restored.float(), target.float()):
        detail = _blurred(volume, (0.25, 0.5, 0.25)) - _blurred(volume, (0.2,) * 5)
        strengths.append((F.avg_pool3d(detail.square(), 4, stride=2) + SMALLEST_ENERGY).sqrt())
    return (strengths[0] - strengths[1]).abs().mean()


def _blurred(volume: Volume, kernel: tuple[float, ...]) -> Volume:
    """The volume filtered along each axis in turn, its border repeated."""
    weights = torch.tensor(kernel, device=volume.device)
    for axis in range(3):
        shape, border = [1] * 5, [0] * 6
        shape[2 + axis] = len(kernel)
        border[4 - 2 * axis] = border[5 - 2 * axis] = len(kernel) // 2
        volume = F.conv3d(F.pad(volume, border, mode="replicate"), weights.view(shape))
    return volume


def fooling_loss(discriminator: nn.Module, restored: VolumeOrSlice) -> Float[Tensor, ""]:
    """Loss of the autoencoder, the discriminator's weights held fixed.

    References:
        Lim and Ye (2017), equation 15.
    """
    fixed = discriminator.state_dict()  # detached from the weights
    return -functional_call(discriminator, fixed, (restored,)).mean()


def telling_loss(
    discriminator: nn.Module, restored: VolumeOrSlice, target: VolumeOrSlice
) -> Float[Tensor, ""]:
    """Hinge loss of the discriminator, the restored volume held fixed.

    References:
        Lim and Ye (2017), equation 14; the factor 0.5 as in Esser et al. (2021), VQGAN.
    """
    true, made = discriminator(target), discriminator(restored.detach())
    return 0.5 * (torch.relu(1.0 - true).mean() + torch.relu(1.0 + made).mean())


def pulls(
    l1: Float[Tensor, ""], fooling: Float[Tensor, ""], last_weight: Tensor
) -> Float[Tensor, "2 ..."]:
    """Gradients of the mean absolute error and of the adversarial loss at the last convolution."""
    losses = (l1, fooling)
    return torch.stack(
        [torch.autograd.grad(loss, last_weight, retain_graph=True)[0] for loss in losses]
    )


def adaptive_weight(pulls: Float[Tensor, "2 ..."]) -> Float[Tensor, ""]:
    """The factor that gives fooling as large a gradient as the L1 at the last convolution.

    Args:
        pulls: Both gradients, over the whole batch: the norm of a mean is no mean of norms, so
            the parts of a divided batch would each find another factor.

    References:
        Esser et al. (2021), VQGAN, equation 7.
    """
    wanted, found = (gradient.norm() for gradient in pulls)
    return (wanted / (found + SMALLEST_GRADIENT)).clamp(max=LARGEST_WEIGHT).detach()
