"""A report in one HTML file that opens offline: slices, X-rays, numbers.

The page holds its data: volumes as base64 int16 HU, X-rays as PNG. It loads nothing and runs
on a `file://` address. What it looks like and does is in `report_template.html`.
"""

import base64
import io
import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from PIL import Image
from torch import Tensor

from fewview import __version__
from fewview.data.files import replacing_file
from fewview.data.volume import Volume
from fewview.evaluation.montage import DIFFERENCE_HU
from fewview.xray.geometry import ViewGeometry
from fewview.xray.views import Views

DIFFERENCE_SHARE = 0.1
"""Differences of X-rays run to plus and minus this share of the view's largest value."""

Pixels = Float[np.ndarray, "row col"]


def write_report(
    path: str | Path,
    *,
    title: str,
    volumes: Mapping[str, Volume],
    views: Views,
    reprojection: Mapping[str, Float[Tensor, "view 1 row col"]],
    table: Sequence[Sequence[str]],
    notes: Sequence[str] = (),
    truth: str = "truth",
) -> None:
    """Write the report.

    Args:
        path: The file, ending in `.html`.
        title: Heading of the page.
        volumes: Volumes on one grid by the name to show, in the order to show.
        views: The measured X-rays.
        reprojection: X-rays of volumes in the geometry of `views`, by name. Shown, with
            their differences, beside calibrated views only.
        table: Rows of cells as text, the header first; numbers already carry their digits,
            headings their units.
        notes: Sentences below the table, such as where the CT comes from.
        truth: The name of the true one among the volumes; the page can show differences
            from it. It need not be there.

    Raises:
        ValueError: If there is no volume, the volumes' shapes differ, a re-projection does
            not fit the views, or the suffix is not `.html`.
    """
    if Path(path).suffix.lower() != ".html":
        raise ValueError(f"a report is a .html file, got {path}")
    for name, images in reprojection.items():
        if images.shape != views.images.shape:
            raise ValueError(
                f"re-projection {name!r} has shape {tuple(images.shape)}, "
                f"the views {tuple(views.images.shape)}"
            )
    content = {
        "title": escape(title),
        "version": escape(__version__),
        "table": html_table(table),
        "notes": "".join(f'<p class="quiet">{escape(note)}</p>' for note in notes),
        "xrays": _xrays(views, reprojection),
        "payload": _payload(volumes, truth),
    }
    template = (files("fewview.evaluation") / "report_template.html").read_text(encoding="utf-8")
    page = re.sub(r"\{\{(\w+)\}\}", lambda found: content[found[1]], template)
    with replacing_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _payload(volumes: Mapping[str, Volume], truth: str) -> str:
    """The volumes as JSON that cannot end the script element it stands in."""
    shapes = {volume.shape for volume in volumes.values()}
    if len(shapes) != 1:
        raise ValueError(f"a report needs volumes of one shape, got {sorted(shapes)}")
    first = next(iter(volumes.values()))
    content = {
        "shape": first.shape,
        "spacing_mm": first.spacing_mm,
        "voxel_to_patient": first.voxel_to_patient.tolist(),
        "difference_hu": DIFFERENCE_HU,
        "truth": truth,
        "volumes": [{"name": name, "hu": _encoded(v)} for name, v in volumes.items()],
    }
    return json.dumps(content).replace("<", "\\u003c")


def _encoded(volume: Volume) -> str:
    """HU as little-endian int16 in base64."""
    limits = np.iinfo(np.int16)
    hu = np.clip(np.rint(volume.hu), limits.min, limits.max).astype("<i2")
    return base64.b64encode(hu.tobytes()).decode("ascii")


def html_table(rows: Sequence[Sequence[str]]) -> str:
    """The rows as an HTML table; the first cell of a row is its heading."""
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in rows[0])
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows[1:]
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _xrays(views: Views, reprojection: Mapping[str, Tensor]) -> str:
    """Every view as a row of figures."""
    rows = []
    for index, geometry in enumerate(views.geometries):
        measured = views.images[index, 0].double().numpy()
        calibrated = views.calibrated[index]
        unit = "line integral" if calibrated else "display value"
        top = float(measured.max())
        about = f"{escape(views.source[index])}, {unit} 0 to {top:.2f}"
        figures = [_figure(_gray(measured, top), "X-ray", about, geometry)]
        for name, images in reprojection.items() if calibrated else ():
            again = images[index, 0].double().numpy()
            limit = DIFFERENCE_SHARE * top
            figures.append(_figure(_gray(again, top), f"{name}, re-projected", "", geometry))
            signed = _signed(again - measured, limit)
            about = f"&plusmn;{limit:.2f}, red is too dense"
            figures.append(_figure(signed, f"{name} \N{MINUS SIGN} X-ray", about, geometry))
        heading = _described(geometry, views.geometry_source[index])
        rows.append(f'<h3>{heading}</h3><div class="xrays">{"".join(figures)}</div>')
    return "".join(rows)


def _described(geometry: ViewGeometry, source: str) -> str:
    """One line on where a view was taken from."""
    words = [f"{geometry.primary_angle_deg:g}&deg;"]
    if geometry.secondary_angle_deg:
        words.append(f"tilted {geometry.secondary_angle_deg:g}&deg; toward the head")
    words.append(f"{geometry.beam} beam")
    if geometry.sdd_mm is not None and geometry.sod_mm is not None:
        words.append(f"source to detector {geometry.sdd_mm:g} mm")
        words.append(f"source to isocenter {geometry.sod_mm:g} mm")
    return ", ".join([*words, f"geometry {escape(source)}"])


def _figure(png: str, name: str, about: str, geometry: ViewGeometry) -> str:
    """One picture with its caption, its sides as on the detector."""
    ratio = (geometry.num_cols * geometry.pixel_pitch_mm[1]) / (
        geometry.num_rows * geometry.pixel_pitch_mm[0]
    )
    caption = f"<strong>{escape(name)}</strong>" + (f"<br>{about}" if about else "")
    label = escape(f"{name}, view at {geometry.primary_angle_deg:g} degrees", quote=True)
    return (
        f'<figure><img src="data:image/png;base64,{png}" alt="{label}" '
        f'style="aspect-ratio: {ratio:.4f}"><figcaption>{caption}</figcaption></figure>'
    )


def _gray(image: Pixels, top: float) -> str:
    """A picture from black at zero to white at `top`."""
    return _png(np.clip(255.0 * image / max(top, 1e-9), 0.0, 255.0).astype(np.uint8))


def _signed(image: Pixels, limit: float) -> str:
    """A picture from blue at minus `limit` over white to red at plus `limit`."""
    share = np.clip(0.5 + 0.5 * image / max(limit, 1e-9), 0.0, 1.0)
    return _png(colormaps["RdBu_r"](share, bytes=True)[..., :3])


def _png(pixels: np.ndarray) -> str:
    """A picture as PNG in base64."""
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, "png", optimize=True)
    return base64.b64encode(out.getvalue()).decode("ascii")
