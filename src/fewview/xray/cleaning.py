"""Collimated borders, bright bars and letters out of a display-style radiograph.

A radiograph for the eye carries what no patient has: borders that the collimator left
unexposed, bars of the reader, lead markers, printed text. They shift every statistic of the
image and are reconstructed as metal. Plain rules find them, at the same places every time;
borders that run across the picture obliquely and tubes or wires inside the patient are left.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from scipy import ndimage, sparse
from scipy.sparse.linalg import spsolve
from torch import Tensor
from torch.nn import functional

from fewview.xray.detector import display_style

Image = Float[np.ndarray, "row col"]

WIDEST_BORDER = 0.25  # share of the picture per side; issue: collimation to 20 %
FLAT = 0.08  # spread of gray along a line that shows no patient
EVEN = (0.15, 0.85)  # quantiles of that spread: a letter may lie on the border
DARK, BRIGHT = 0.1, 0.85  # gray of borders and bars, in [0, 1]
BLANK = 0.02  # spread of gray in a border that a viewing station has painted
DARK_STEP = 0.05  # change of gray where a dark border ends
STEP = 0.15  # change of gray where a bright bar ends; a saturated abdomen ends softly
BAR = 0.75  # gray that nearly all of a line exceeds inside a bar across the picture
SHARP = 0.02  # share of the picture within which a bright border must end
NEAR = 0.06  # share of the picture over which a bar has ended, also one that runs askew
BAND_SHARE = 0.9  # share of flat lines in a border

LARGEST_MARK = 0.12  # of the shorter side: height and width of a letter
SMALLEST_MARK = 0.015  # of the shorter side; smaller specks are noise or calcifications
CONTRAST = 0.3  # gray above the surroundings
WIDEST_STROKE = 0.03  # of the shorter side; what is wider may be anatomy or a device
SATURATED = 0.9  # gray of a mark on the patient
AIR = 0.15  # gray of the air, where fainter marks are told from anatomy
FAINTEST = 0.5  # gray that the brightest part of a mark in air reaches
MARK_ZONE = 0.22  # share of each side where marks are put


@dataclass(frozen=True, eq=False)
class Cleaned:
    """A radiograph in display style without what is no patient."""

    image: Float32[Tensor, "row col"]
    """In [0, 1], windowed by the exposed field alone."""

    touched: Bool[Tensor, "row col"]
    """Where borders and marks were filled."""


def clean(image: Float[Tensor, "row col"]) -> Cleaned:
    """Remove collimated borders, bars and letters from a radiograph, bone bright.

    Letters are filled harmonically from around them. Borders are filled with the nearest exposed
    pixel: a body that goes on is a better guess than one that ends (docs/radiographs.md). A picture
    without any of these is windowed and otherwise stays as it is.
    """
    pixels = image.detach().cpu().numpy().astype(np.float64)
    top, bottom, left, right = exposed_field(pixels)
    inside = pixels[top:bottom, left:right]
    marks = markings(_gray(inside))
    shown = display_style(torch.from_numpy(harmonic_fill(inside, marks)).float())
    touched = np.ones(pixels.shape, dtype=bool)
    touched[top:bottom, left:right] = marks
    box = (top, bottom, left, right)
    cleaned = continued(shown, box, (pixels.shape[0], pixels.shape[1]))
    return Cleaned(cleaned.to(image.device), torch.from_numpy(touched).to(image.device))


def continued(
    field: Float[Tensor, "row col"], box: tuple[int, int, int, int], shape: tuple[int, int]
) -> Float[Tensor, "row2 col2"]:
    """An exposed field in a picture of `shape` whose borders repeat the nearest exposed pixel.

    Args:
        field: The exposed pixels.
        box: Their first and last row, first and last column (exclusive) in the picture.
        shape: Rows and columns of the picture.
    """
    top, bottom, left, right = box
    margins = (left, shape[1] - right, top, shape[0] - bottom)
    return functional.pad(field[None, None], margins, mode="replicate")[0, 0]


def exposed_field(pixels: Image) -> tuple[int, int, int, int]:
    """First and last row, first and last column (exclusive) inside borders and bars."""
    gray = _gray(pixels)
    rows, cols = gray.shape
    top, bottom = _border(gray), rows - _border(gray[::-1])
    # Rows that are borders would make every column uneven.
    upright = gray[top:bottom].T
    return top, bottom, _border(upright), cols - _border(upright[::-1])


def _gray(pixels: Image) -> Image:
    """The image in [0, 1] between its 1st and 99th percentile."""
    low, high = np.quantile(pixels, (0.01, 0.99))
    return np.clip((pixels - low) / max(high - low, 1e-6), 0.0, 1.0)


def _border(gray: Image) -> int:
    """How many lines from the first on show no patient."""
    most, near, sharp = (max(1, int(share * len(gray))) for share in (WIDEST_BORDER, NEAR, SHARP))
    lines = gray[: most + near]
    low, middle, high = np.quantile(lines, (EVEN[0], 0.5, EVEN[1]), axis=1)
    even = high - low < FLAT
    dark = _from_edge((even & (middle < DARK))[:most])
    bright = _from_edge((even & (middle > BRIGHT))[:most])
    if dark and high[dark : dark + sharp].max() - high[dark - 1] < DARK_STEP:
        dark = 0  # air, which the window makes black anyway
    blank = bright and np.ptp(lines[:bright]) < BLANK
    if bright and not blank and middle[bright - 1] - middle[bright : bright + sharp].min() < STEP:
        bright = 0  # a saturated abdomen, which ends softly
    bars = np.flatnonzero(low[near:most] > BAR) + near
    across = [bar for bar in bars if low[bar] - max(low[bar - near], low[bar + near]) > STEP]
    # A bar that runs a little askew still lies on the lines behind the last one it fills.
    return max(dark, bright, int(across[-1]) + near if across else 0)


def _from_edge(is_border: Bool[np.ndarray, "line"]) -> int:
    """How many lines from the first on are border, but for a few."""
    share = np.cumsum(is_border) / np.arange(1, len(is_border) + 1)
    return int(np.flatnonzero(is_border & (share >= BAND_SHARE)).max(initial=-1)) + 1


def markings(gray: Image) -> Bool[np.ndarray, "row col"]:
    """Small, saturated components near the edge that stand out from their surroundings.

    Args:
        gray: The exposed field in [0, 1], bone bright.
    """
    shorter = min(gray.shape)
    stroke = max(3, round(WIDEST_STROKE * shorter))
    around = ndimage.grey_opening(gray, size=(stroke, stroke), mode="nearest")
    labels, _ = ndimage.label(gray - around > CONTRAST, structure=np.ones((3, 3)))
    marks = np.zeros(gray.shape, dtype=bool)
    for index, box in enumerate(ndimage.find_objects(labels), start=1):
        component = labels[box] == index
        if _is_placed(component, box, gray.shape) and _is_lead(
            gray[box][component], around[box][component]
        ):
            marks[box] |= component
    return ndimage.binary_dilation(marks, iterations=max(2, round(shorter / 128)))


def _is_placed(
    component: Bool[np.ndarray, "row col"], box: tuple[slice, ...], shape: tuple[int, ...]
) -> bool:
    """Whether a component has the size and the place of a letter."""
    shorter = min(shape)
    if not SMALLEST_MARK * shorter <= max(component.shape) <= LARGEST_MARK * shorter:
        return False
    centers = [(part.start + part.stop) / 2.0 / size for part, size in zip(box, shape, strict=True)]
    return any(min(center, 1.0 - center) < MARK_ZONE for center in centers)


def _is_lead(gray: Float[np.ndarray, "pixel"], around: Float[np.ndarray, "pixel"]) -> bool:
    """Whether pixels are as white as lead or print, on the patient or in the air."""
    in_air = float(np.median(around)) < AIR
    white = float(np.quantile(gray, 0.75)) > SATURATED
    return white or (in_air and float(gray.max()) > FAINTEST)


def harmonic_fill(pixels: Image, holes: Bool[np.ndarray, "row col"]) -> Image:
    """The image with holes filled by the smoothest surface that meets their rims.

    Solves Laplace's equation with four neighbors per pixel; at the picture's edge the missing
    neighbors are left out.
    """
    filled = pixels.copy()
    rows, cols = np.nonzero(holes)
    if not len(rows) or holes.all():
        return filled
    numbers: Int64[np.ndarray, "row col"] = np.full(pixels.shape, -1, dtype=np.int64)
    numbers[rows, cols] = np.arange(len(rows))
    count, right = np.zeros(len(rows)), np.zeros(len(rows))
    links: list[tuple[np.ndarray, np.ndarray]] = []
    for step_row, step_col in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        to_row, to_col = rows + step_row, cols + step_col
        there = (to_row >= 0) & (to_row < pixels.shape[0]) & (to_col >= 0)
        there &= to_col < pixels.shape[1]
        count += there
        own = np.flatnonzero(there)
        neighbor = numbers[to_row[own], to_col[own]]
        known = neighbor < 0
        right[own[known]] += pixels[to_row[own[known]], to_col[own[known]]]
        links.append((own[~known], neighbor[~known]))
    here = np.concatenate([own for own, _ in links])
    other = np.concatenate([neighbor for _, neighbor in links])
    matrix = sparse.diags(count) - sparse.coo_matrix(
        (np.ones(len(here)), (here, other)), shape=(len(rows), len(rows))
    )
    filled[rows, cols] = spsolve(matrix.tocsc(), right)
    return filled
