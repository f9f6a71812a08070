"""The report: one file, complete, safe against what stands in names."""

import base64
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fewview.data.volume import Volume, cubic_grid
from fewview.evaluation.report import write_report
from fewview.xray.geometry import preset
from fewview.xray.views import Views, drr


def volume(shift: float = 0.0) -> Volume:
    grid = cubic_grid(np.array([0.0, 5.0, 9.0]), size=8, extent_mm=160.0)
    hu = np.arange(512, dtype=np.float32).reshape(grid.shape) - 1000.0 + shift
    return Volume(hu, grid.voxel_to_patient)


def two_views() -> Views:
    return drr(volume(), [preset("chest", angle_deg=angle, size=8) for angle in (0.0, 90.0)])


def page(path: Path, **changes: object) -> str:
    arguments: dict[str, object] = {
        "title": "a test",
        "volumes": {"truth": volume(), "mine": volume(40.0)},
        "views": two_views(),
        "reprojection": {"mine": two_views().images},
        "table": [["method", "PSNR (dB)"], ["mine", "31.2"]],
        "notes": ["made of numbers"],
    }
    write_report(path, **(arguments | changes))
    return path.read_text(encoding="utf-8")


def payload(text: str) -> dict:
    found = re.search(r'id="payload">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_the_report_loads_nothing_from_elsewhere(tmp_path):
    text = page(tmp_path / "report.html")
    addresses = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert len(addresses) == 6  # three pictures per view
    assert all(address.startswith("data:image/png;base64,") for address in addresses)
    assert "http:" not in text
    assert "https:" not in text
    assert "{{" not in text


def test_the_report_holds_the_volumes_to_the_hu(tmp_path):
    content = payload(page(tmp_path / "report.html"))
    assert content["shape"] == [8, 8, 8]
    assert content["spacing_mm"] == [20.0, 20.0, 20.0]
    assert [one["name"] for one in content["volumes"]] == ["truth", "mine"]
    hu = np.frombuffer(base64.b64decode(content["volumes"][1]["hu"]), "<i2")
    np.testing.assert_array_equal(hu, volume(40.0).hu.ravel())


def test_table_notes_and_the_warning_are_on_the_page(tmp_path):
    text = page(tmp_path / "report.html")
    assert '<th scope="row">mine</th><td>31.2</td>' in text
    assert "made of numbers" in text
    assert "not a medical device" in text


def test_names_cannot_break_the_page(tmp_path):
    name = "</script><b>&\\1{{table}}"
    text = page(tmp_path / "report.html", title=name, volumes={name: volume()}, notes=[name])
    assert payload(text)["volumes"][0]["name"] == name
    assert "<b>" not in text
    assert text.count("&lt;/script&gt;&lt;b&gt;&amp;\\1{{table}}") == 3


def test_display_style_views_are_shown_without_reprojection(tmp_path):
    views = replace(two_views(), calibrated=(False, True))
    text = page(tmp_path / "report.html", views=views)
    assert text.count("<img ") == 4
    assert "display value" in text


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ValueError, match="re-projection 'mine'"):
        page(tmp_path / "a.html", reprojection={"mine": torch.zeros(1, 1, 8, 8)})
    with pytest.raises(ValueError, match="one shape"):
        page(tmp_path / "a.html", volumes={})
    with pytest.raises(ValueError, match=r"\.html"):
        page(tmp_path / "a.pdf")
    assert list(tmp_path.iterdir()) == []
