"""Figures, table and picture of a pool of matched latents; knows neither models nor cases."""

import csv
import io
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from matplotlib import rc_context
from matplotlib.figure import Figure

from fewview.evaluation.statistics import bootstrap_mean

Rows = Float[np.ndarray, "case value"]
Figures = dict[str, Float[np.ndarray, " case"]]

DIGITS = 6
SHOWN = (
    ("xray_to_ct_top1", "X-ray to CT, first"),
    ("xray_to_ct_top5", "X-ray to CT, among five"),
    ("ct_to_xray_top1", "CT to X-ray, first"),
    ("ct_to_xray_top5", "CT to X-ray, among five"),
    ("fresh_xray_to_ct_top1", "X-ray to CT, first, before"),
    ("distance", "distance to the own CT"),
    ("distance_to_others", "distance to other CTs"),
    ("fresh_distance", "distance to the own CT, before"),
    ("fresh_minus_distance", "before minus after"),
)
"""The figures of the terminal, in order, with their names."""


def own_ranks(similarity: Float[np.ndarray, "case case"]) -> Int[np.ndarray, " case"]:
    """Rank of the own one among all by similarity, row by row.

    What is not farther counts as nearer: ties, and similarities that are no number.
    """
    return (~(similarity < np.diag(similarity)[:, None])).sum(axis=1)


def case_figures(cts: Rows, aligned: Rows, fresh: Rows, *, num_positions: int) -> Figures:
    """Ranks and distances of every case.

    A distance is the mean over positions of the squared distance of two vectors of length 1: 0
    where they are one, 2 where they have nothing in common, 4 where they are opposite.

    Args:
        cts: Of each case's CT, the vectors of all positions at length 1 in one row.
        aligned: Of its X-rays.
        fresh: Of its X-rays by networks that have learned nothing.
        num_positions: Positions in a row.
    """
    similarity, before = (rows @ cts.T / num_positions for rows in (aligned, fresh))
    ranks = {
        "xray_to_ct": own_ranks(similarity),
        "ct_to_xray": own_ranks(similarity.T),
        "fresh_xray_to_ct": own_ranks(before),
        "fresh_ct_to_xray": own_ranks(before.T),
    }
    figures: Figures = {}
    for name, rank in ranks.items():
        figures[f"{name}_rank"] = rank.astype(np.float64)
        figures[f"{name}_top1"] = (rank <= 1).astype(np.float64)
        figures[f"{name}_top5"] = (rank <= 5).astype(np.float64)
    own, own_before = np.diag(similarity), np.diag(before)
    others = (similarity.sum(axis=1) - own) / (len(own) - 1)
    figures["distance"] = 2.0 - 2.0 * own.astype(np.float64)
    figures["distance_to_others"] = 2.0 - 2.0 * others.astype(np.float64)
    figures["fresh_distance"] = 2.0 - 2.0 * own_before.astype(np.float64)
    figures["fresh_minus_distance"] = figures["fresh_distance"] - figures["distance"]
    return figures


def summarized(figures: Figures) -> dict[str, dict[str, float]]:
    """Mean over cases and 95 % bootstrap interval of every figure."""
    return {
        name: {key: round(value, DIGITS) for key, value in bootstrap_mean(values)._asdict().items()}
        for name, values in figures.items()
    }


def summary_lines(name: str, num_cases: int, summary: dict[str, dict[str, float]]) -> list[str]:
    """The main figures as lines for the terminal."""
    lines = [f"{name}, a pool of {num_cases} cases (chance {1 / num_cases:.3f})"]
    for key, shown in SHOWN:
        mean, low, high = (summary[key][part] for part in ("mean", "low", "high"))
        lines.append(f"  {shown}: {mean:.3f} ({low:.3f} to {high:.3f})")
    return lines


def as_table(names: Sequence[str], figures: Figures) -> str:
    """All figures of all cases as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", *figures])
    for index, name in enumerate(names):
        values = (float(column[index]) for column in figures.values())
        writer.writerow([name, *(f"{value:.{DIGITS}g}" for value in values)])
    return text.getvalue()


def principal_axes(cts: Rows) -> tuple[Float[np.ndarray, " value"], Float[np.ndarray, "2 value"]]:
    """Mean of the CTs and the two directions in which they differ most.

    The sign of a direction is arbitrary: its largest component is made positive, so that a
    picture made twice is the same.
    """
    center = cts.mean(axis=0)
    _, _, axes = np.linalg.svd(cts - center, full_matrices=False)
    axes = axes[:2]
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    return center, axes * np.sign(largest)


def embedding_svg(cts: Rows, aligned: Rows, fresh: Rows) -> bytes:
    """CTs and X-rays in the plane in which the CTs differ most, own pairs joined.

    References:
        CLS-DM shows the same three sets by t-SNE; principal components keep distances and
        have neither seed nor perplexity.
    """
    center, axes = principal_axes(cts)
    places = {
        "CT": (cts, "o", "tab:blue"),
        "X-rays, aligned": (aligned, "x", "tab:red"),
        "X-rays before": (fresh, "+", "tab:gray"),
    }
    with rc_context({"svg.hashsalt": "fewview", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(6.0, 5.4), layout="constrained")
        plane = figure.subplots()
        flat = {name: (rows - center) @ axes.T for name, (rows, _, _) in places.items()}
        for one, other in zip(flat["CT"], flat["X-rays, aligned"], strict=True):
            ends = np.stack([one, other])
            plane.plot(ends[:, 0], ends[:, 1], color="tab:red", linewidth=0.6, alpha=0.5)
        for name, (_, marker, color) in places.items():
            points = flat[name]
            plane.scatter(points[:, 0], points[:, 1], marker=marker, color=color, label=name)
        shares = _shares(cts)
        plane.set_xlabel(f"first principal component of the CTs ({shares[0]:.0%})")
        plane.set_ylabel(f"second ({shares[1]:.0%})")
        plane.legend(frameon=False)
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()


def _shares(cts: Rows) -> list[float]:
    """Share of the CTs' variance along each of the first two axes."""
    values = np.linalg.svd(cts - cts.mean(axis=0), compute_uv=False)[:2] ** 2
    total = float(np.square(cts - cts.mean(axis=0)).sum())
    return [float(value) / total if total > 0.0 else math.nan for value in values]
