"""Plots of an experiment as SVG: quality against views, denoiser calls and time."""

import io
import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any, NamedTuple

from matplotlib import colormaps, rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fewview.experiment.summary import HEADLINE, Entry, Measure
from fewview.experiment.tables import shown_name, views_word

PANELS = HEADLINE[:4]
"""The measures that are drawn."""

COLORS = colormaps["tab10"].colors  # type: ignore[attr-defined]
MARKERS = "osD^vPX*<"
"""One fewer than there are colors: so ninety methods look different."""

WIDTH_INCHES, ROW_INCHES = 10.0, 3.4
MOST_TICKS = 10


class Line(NamedTuple):
    """What is joined by a line: quality at several places of an axis."""

    label: str
    dashed: bool
    points: list[tuple[float, Entry]]


def plots(entries: Sequence[Entry], models: Mapping[str, str] | None = None) -> dict[str, bytes]:
    """All plots as SVG by name; a name is left out where there is nothing to draw.

    Ceilings are dashed. Bars are 95 % bootstrap intervals over cases.

    Args:
        entries: Means with intervals.
        models: The model of each method that has one, by the method's name. Methods of one
            model are joined in the plot against denoiser calls.
    """
    found = {}
    methods = list(dict.fromkeys(entry.method for entry in entries))
    if len({entry.num_views for entry in entries}) > 1:
        lines = [_line_of(entries, one, "num_views") for one in methods]
        found["quality-views"] = _figure(lines, "views", "log2")
    lines = _lines_of_calls(entries, models or {})
    if lines:
        found["quality-calls"] = _figure(lines, "denoiser calls", "symlog")
    lines = [_line_of(entries, one, "seconds") for one in methods]
    found["quality-time"] = _figure(lines, "seconds per volume", "log10")
    return found


def _line_of(entries: Sequence[Entry], method: str, along: str) -> Line:
    """A method over its view counts."""
    mine = sorted((e for e in entries if e.method == method), key=lambda e: e.num_views)
    points = [(max(float(getattr(entry, along)), 1e-3), entry) for entry in mine]
    return Line(shown_name(mine[0]), mine[0].ceiling, points)


def _lines_of_calls(entries: Sequence[Entry], models: Mapping[str, str]) -> list[Line]:
    """Every model that was sampled, a line per view count over its methods."""
    found: dict[str, list[tuple[float, Entry]]] = {}
    sampled = {models.get(entry.method, entry.method) for entry in entries if entry.nfe > 0}
    for entry in entries:
        model = models.get(entry.method, entry.method)
        if model in sampled and not entry.ceiling:
            label = f"{model}, {views_word(entry.num_views)}"
            found.setdefault(label, []).append((entry.nfe, entry))
    return [
        Line(label, False, sorted(points, key=lambda point: point[0]))
        for label, points in found.items()
    ]


def _figure(lines: Sequence[Line], along: str, scale: str) -> bytes:
    """Four panels of quality against one quantity."""
    with rc_context({"svg.hashsalt": "fewview", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(WIDTH_INCHES, 2 * ROW_INCHES + 0.9), layout="constrained")
        legend: dict[str, Artist] = {}
        ticks = sorted({x for line in lines for x, _ in line.points})
        for axes, measure in zip(figure.subplots(2, 2).ravel(), PANELS, strict=True):
            _draw(axes, lines, measure)
            _set_scale(axes, scale, ticks)
            axes.set_xlabel(along)
            axes.set_ylabel(measure.heading)
            axes.grid(True, alpha=0.25)
            handles, labels = axes.get_legend_handles_labels()
            legend |= dict(zip(labels, handles, strict=True))
        handles, labels = list(legend.values()), list(legend)
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()


def _set_scale(axes: Axes, scale: str, ticks: Sequence[float]) -> None:
    """A logarithmic axis; counts are written where they are, and 0 calls have a place."""
    if scale == "log10":
        axes.set_xscale("log")
        return
    if scale == "symlog":
        axes.set_xscale("symlog", base=2, linthresh=1.0)
    else:
        axes.set_xscale("log", base=2)
    if len(ticks) <= MOST_TICKS:
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()


def _draw(axes: Axes, lines: Sequence[Line], measure: Measure) -> None:
    """Every line of one measure; what is not finite has no place in a plot."""
    for line, (color, marker) in zip(lines, zip(cycle(COLORS), cycle(MARKERS)), strict=False):
        style: dict[str, Any] = {
            "color": color,
            "marker": marker,
            "markersize": 5,
            "linewidth": 1.2,
            "linestyle": "--" if line.dashed else "-",
            "capsize": 2,
            "label": line.label,
        }
        points = [
            (x, entry.measures[measure.key])
            for x, entry in line.points
            if measure.key in entry.measures and math.isfinite(entry.measures[measure.key].mean)
        ]
        if not points:
            continue
        means = [measure.factor * interval.mean for _, interval in points]
        # With one case there is no interval: its ends are NaN, which become bars of length 0.
        low = [max(0.0, measure.factor * (one.mean - one.low)) for _, one in points]
        high = [max(0.0, measure.factor * (one.high - one.mean)) for _, one in points]
        axes.errorbar([x for x, _ in points], means, yerr=[low, high], **style)
