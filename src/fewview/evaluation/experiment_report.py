"""A page of tables and pictures in one HTML file that opens offline.

Knows nothing of methods or files: it is handed finished text, tables and pictures, and puts
them into `experiment_template.html`. The page loads nothing and needs no script.
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Literal

from fewview import __version__
from fewview.data.files import replacing_file
from fewview.evaluation.report import html_table

MIME = {"png": "image/png", "svg": "image/svg+xml"}


@dataclass(frozen=True)
class Picture:
    """A picture that the page carries."""

    data: bytes
    form: Literal["png", "svg"]
    caption: str
    small: bool = False
    """A slice picture, shown enlarged with hard pixels, several in a row."""


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it: notes, then a table, then pictures."""

    title: str
    notes: tuple[str, ...] = ()
    table: tuple[tuple[str, ...], ...] = ()
    """Rows of cells, the header first."""

    pictures: tuple[Picture, ...] = ()


def write_page(path: str | Path, *, title: str, sections: Sequence[Section]) -> None:
    """Write the page.

    Args:
        path: The file, ending in `.html`.
        title: Heading of the page.
        sections: What it holds, from top to bottom.

    Raises:
        ValueError: If the suffix is not `.html`.
    """
    if Path(path).suffix.lower() != ".html":
        raise ValueError(f"a report is a .html file, got {path}")
    content = {
        "title": escape(title),
        "version": escape(__version__),
        "contents": _contents(sections),
        "sections": "".join(_section(index, one) for index, one in enumerate(sections)),
    }
    template = files("fewview.evaluation") / "experiment_template.html"
    text = template.read_text(encoding="utf-8")
    page = re.sub(r"\{\{(\w+)\}\}", lambda found: content[found[1]], text)
    with replacing_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _contents(sections: Sequence[Section]) -> str:
    """Links to the sections of this page."""
    links = (
        f'<li><a href="#part{index}">{escape(section.title)}</a></li>'
        for index, section in enumerate(sections)
    )
    return f"<ul>{''.join(links)}</ul>"


def _section(index: int, section: Section) -> str:
    """One section."""
    notes = "".join(f'<p class="quiet">{escape(note)}</p>' for note in section.notes)
    pictures = "".join(map(_picture, section.pictures))
    if pictures:
        pictures = f'<div class="pictures">{pictures}</div>'
    return (
        f'<section aria-labelledby="part{index}"><h2 id="part{index}">{escape(section.title)}'
        f"</h2>{notes}{_scrolling(section.table)}{pictures}</section>"
    )


def _picture(picture: Picture) -> str:
    """A picture with its caption."""
    data = base64.b64encode(picture.data).decode("ascii")
    kind = ' class="small"' if picture.small else ""
    return (
        f'<figure{kind}><img src="data:{MIME[picture.form]};base64,{data}" '
        f'alt="{escape(picture.caption, quote=True)}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )


def _scrolling(rows: Sequence[Sequence[str]]) -> str:
    """A table in a box that scrolls where it is wider than the page."""
    table = html_table(rows)
    return table and f'<div class="scroll">{table}</div>'
