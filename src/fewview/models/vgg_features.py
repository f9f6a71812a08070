"""Features of a VGG network from a local file, for a perceptual distance of slices.

fewview ships no such weights and downloads none. What is read is the state dict of the published
VGG networks as a safetensors file: `features.N.weight` and `features.N.bias`, where N counts
convolutions, ReLUs and poolings.

References:
    Simonyan and Zisserman (2015), VGG; Zhang et al. (2018), LPIPS: which layers to compare.
"""

import itertools
import re
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the colors of the photographs that the published weights have learned from."""

NEXT = 2  # from a convolution to the next: itself and its ReLU; one more where it is halved between


class VggFeatures(nn.Module):
    """Convolutions with ReLU, halved by maxima; never trained nor stored."""

    def __init__(self, path: Path) -> None:
        """Read the weights.

        Raises:
            ValueError: If the file is none of this kind.
        """
        super().__init__()
        try:
            stored = load_file(path)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path}: no safetensors file of weights ({error})") from error
        found = {int(match[1]): key for key in stored if (match := _WEIGHT.fullmatch(key))}
        self.places = sorted(found)
        for place in self.places:
            weight, bias = stored[found[place]], stored.get(f"features.{place}.bias")
            if weight.ndim != 4 or bias is None or len(bias) != len(weight):
                raise ValueError(f"{path}: features.{place} is no convolution with a bias")
            self.register_buffer(f"weight_{place}", weight.float(), persistent=False)
            self.register_buffer(f"bias_{place}", bias.float(), persistent=False)
        if not self.places or self.get_buffer(f"weight_{self.places[0]}").shape[1] != len(MEAN):
            raise ValueError(
                f"{path}: not the weights of a VGG network: features.0.weight and so on, of three "
                "colors"
            )
        for name, values in (("mean", MEAN), ("spread", SPREAD)):
            shaped = torch.tensor(values)[:, None, None]
            self.register_buffer(name, shaped, persistent=False)

    def forward(
        self, image: Float[Tensor, "batch 1 row col"]
    ) -> list[Float[Tensor, "batch channel _row _col"]]:
        """The last features of each resolution, those of a position scaled to length one.

        Args:
            image: Gray values in about [-1, 1].
        """
        gray = (image.float() + 1.0) / 2.0
        mean, spread = self.get_buffer("mean"), self.get_buffer("spread")
        hidden = (gray.expand(-1, len(MEAN), -1, -1) - mean) / spread
        features = []
        gaps = [after - place for place, after in itertools.pairwise(self.places)]
        for place, gap in zip(self.places, [*gaps, 0], strict=True):
            weight, bias = self.get_buffer(f"weight_{place}"), self.get_buffer(f"bias_{place}")
            hidden = F.relu(F.conv2d(hidden, weight, bias, padding=weight.shape[-1] // 2))
            if gap != NEXT:
                features.append(F.normalize(hidden, dim=1, eps=1e-6))
            if gap > NEXT:
                hidden = F.max_pool2d(hidden, 2)
        return features


_WEIGHT = re.compile(r"features\.(\d+)\.weight")
