"""The page of an experiment: one file, complete, safe against what stands in names."""

import base64
import re

import pytest

from fewview.evaluation.experiment_report import Picture, Section, write_page

SVG = b'<svg xmlns="http://www.w3.org/2000/svg"/>'


def test_the_page_loads_nothing_from_elsewhere_and_holds_its_pictures(tmp_path):
    pictures = (Picture(SVG, "svg", "a plot"), Picture(b"\x89PNG", "png", "a slice", small=True))
    sections = [Section("Plots", ("a note",), (("method", "PSNR"), ("SIRT", "19.2")), pictures)]
    write_page(tmp_path / "report.html", title="a test", sections=sections)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    addresses = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert [one.split(",")[0] for one in addresses] == [
        "#part0",
        "data:image/svg+xml;base64",
        "data:image/png;base64",
    ]
    assert base64.b64decode(addresses[1].split(",")[1]) == SVG
    assert "http" not in text.replace("http-equiv", "")
    assert '<th scope="row">SIRT</th><td>19.2</td>' in text
    assert "not a medical device" in text
    assert "{{" not in text


def test_names_cannot_break_the_page(tmp_path):
    name = '"><script>{{title}}'
    section = Section(name, (name,), ((name, name),), (Picture(b"", "png", name),))
    write_page(tmp_path / "report.html", title=name, sections=[section])
    assert "<script>" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\.html"):
        write_page(tmp_path / "report.txt", title="a test", sections=[])
