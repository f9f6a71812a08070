"""The held-out display style: what a viewing station may do to a radiograph, drawn by a seed.

It measures whether a reconstruction survives real display processing. It is HELD OUT: no
training draws from it, and its ranges are fixed, so that a figure means the same next year.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from fewview.xray.detector import DISPLAY_LEVELS

GAMMA = (0.4, 2.5)  # drawn on a logarithmic scale
WINDOW_CUT = 0.30  # largest share of the gray range that the window cuts, at both ends together
COLLIMATION = 0.20  # largest covered share of the picture per side
NOISE = 0.04  # largest standard deviation of noise, in the gray range
NUM_LETTERS = (1, 2)
LETTER_HEIGHT = (0.05, 0.09)  # share of the picture's height
LETTERS = "LR"


@dataclass(frozen=True, kw_only=True)
class DisplayStyle:
    """One way to display a radiograph."""

    gamma: float
    """Exponent of the gray curve."""

    window: tuple[float, float]
    """Gray values, in [0, 1], that become black and white."""

    collimation: tuple[float, float, float, float]
    """Covered shares at the top, bottom, left and right."""

    border: float
    """Gray of what is covered: 0 or 1."""

    noise: float
    """Standard deviation of the noise, in the gray range."""

    letters: tuple[tuple[str, float, float, float], ...]
    """Letter, height, row and column of its corner, as shares of the exposed field."""


def draw_style(generator: torch.Generator) -> DisplayStyle:
    """A display style from the held-out ranges."""

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    gamma = math.exp(uniform(math.log(GAMMA[0]), math.log(GAMMA[1])))
    cut = uniform(0.0, WINDOW_CUT)
    below = uniform(0.0, cut)
    top, bottom, left, right = (uniform(0.0, COLLIMATION) for _ in range(4))
    border = float(uniform(0.0, 1.0) < 0.5)
    letters = []
    for _ in range(1 + int(uniform(0.0, 1.0) < 0.5)):
        letter = LETTERS[int(uniform(0.0, 1.0) < 0.5)]
        # In a corner above the shoulders, where markers are put.
        col = uniform(0.02, 0.12) if uniform(0.0, 1.0) < 0.5 else uniform(0.82, 0.9)
        letters.append((letter, uniform(*LETTER_HEIGHT), uniform(0.02, 0.1), col))
    return DisplayStyle(
        gamma=gamma,
        window=(below, 1.0 - (cut - below)),
        collimation=(top, bottom, left, right),
        border=border,
        noise=uniform(0.0, NOISE),
        letters=tuple(letters),
    )


def apply_style(
    line_integrals: Float[Tensor, "row col"], style: DisplayStyle, generator: torch.Generator
) -> Float[Tensor, "row col"]:
    """An X-ray displayed in a style: window, gamma, noise, letters, collimation, 256 levels.

    Args:
        line_integrals: Line integrals of one view.
        style: How to display it.
        generator: Source of the noise; on the device of the image.

    Returns:
        The image in [0, 1], bone bright.
    """
    low, high = line_integrals.min(), line_integrals.max()
    gray = (line_integrals - low) / (high - low).clamp(min=1e-6)
    black, white = style.window
    gray = ((gray - black) / (white - black)).clamp(0.0, 1.0) ** style.gamma
    noise = torch.empty_like(gray).normal_(generator=generator)
    gray = (gray + style.noise * noise).clamp(0.0, 1.0)
    rows, cols = gray.shape
    top, bottom, left, right = (
        round(share * count)
        for share, count in zip(style.collimation, (rows, rows, cols, cols), strict=True)
    )
    shown = torch.full_like(gray, style.border)
    field = gray[top : rows - bottom, left : cols - right]
    shown[top : rows - bottom, left : cols - right] = _lettered(field, style)
    return (shown * DISPLAY_LEVELS).round() / DISPLAY_LEVELS


def _lettered(gray: Float[Tensor, "row col"], style: DisplayStyle) -> Float[Tensor, "row col"]:
    """The image with white letters."""
    rows, cols = gray.shape
    layer = Image.new("L", (cols, rows))
    draw = ImageDraw.Draw(layer)
    for letter, height, row, col in style.letters:
        font = ImageFont.load_default(size=max(6.0, 1.4 * height * rows))
        draw.text((col * cols, row * rows), letter, fill=255, font=font)
    white = torch.from_numpy(np.array(layer, dtype=np.float32) / 255.0).to(gray)
    return torch.maximum(gray, white)
