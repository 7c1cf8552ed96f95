"""The index of figures and tables: filled in when the pages are built, because only then is it known what they show.

The page is made by generated.figures with a place for each chapter. Each entry leads to its section and, where the
chapter carries the data of a figure or table, to a file of them; all those files are in one zip, too.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import packing
from bs4 import BeautifulSoup, Tag

from kernelnotes.views.output import file_name

PAGE = "book/reference/figures.html"
DATA = "_static/data"  # of the site
PLACE = re.compile(r'<div class="kn-index" data-page="([^"]+)">[^<]*</div>')
ZIP = re.compile(r'<span class="kn-data-zip">([^<]*)</span>')


class Shown(NamedTuple):
    """A figure, a table, or a picture with a control."""

    kind: str
    title: str
    section: str  # id of the section it stands in
    mark: str  # live, recorded or model
    data: str  # CSV, or empty


def shown(page: str) -> Iterator[Shown]:
    """What a built page shows, in its order; printed text and notes are left out."""
    for one in BeautifulSoup(page, "html.parser").select(".kn-out"):
        section = one.find_parent("section")
        if {"kn-note", "kn-listing"} & set(one["class"]) or one.find_parent(class_="kn-out") or section is None:
            continue
        mark = one.select_one(".kn-provenance b")
        link = one.select_one("a.kn-csv")
        yield Shown(
            kind=_kind(one),
            title=_title(one, section),
            section=str(section["id"]),
            mark=mark.get_text().partition(",")[0].rstrip(":") if mark else "",
            data=unquote(str(link["href"]).partition(",")[2]) if link else "",
        )


def _kind(one: Tag) -> str:
    if "kn-still" in one["class"]:
        return "with a control"
    return "table" if one.select_one("table.kn-table") else "figure"


def _title(one: Tag, section: Tag) -> str:
    """Its heading or caption, without what follows the first sentence; else the heading of its section."""
    captions = ("figcaption > span:not(.kn-provenance)", ".kn-head > :not(.kn-provenance, .kn-csv)", "caption")
    told = next(filter(None, map(one.select_one, captions)), None)
    heading = section.find(["h1", "h2", "h3", "h4"])
    words = "".join(
        text
        for text in (told or heading or section).strings
        if not (text.parent and {"section-number", "headerlink"} & set(text.parent.get("class") or ()))
    )
    return words.strip().split(". ")[0].rstrip(".")


def fill(site: Path) -> None:
    """Put the entries into the index of a built site, and their data beside it."""
    page = site / PAGE
    if not page.is_file():
        return
    folder = site / DATA
    folder.mkdir(parents=True)
    every: dict[str, str] = {}

    def entries(place: re.Match[str]) -> str:
        lines = []
        for number, one in enumerate(shown((site / "book" / f"{place[1]}.html").read_text(encoding="utf-8")), 1):
            link = ""
            if one.data:
                name = f"{place[1]}/{number:02}-{file_name(one.title)}.csv"
                every[name] = one.data
                words = escape(f"Data of {one.title} as CSV")
                link = f' <a class="kn-csv" download href="../../{DATA}/{name}" aria-label="{words}">CSV</a>'
            lines.append(
                f'<li><a href="../{place[1]}.html#{one.section}">{escape(one.title)}</a> '
                f"<small>({one.kind}, {one.mark})</small>{link}</li>"
            )
        return f'<ul class="kn-index">{"".join(lines)}</ul>' if lines else "<p>None.</p>"

    text = PLACE.sub(entries, page.read_text(encoding="utf-8"))
    with zipfile.ZipFile(folder / "data.zip", "w") as archive:
        for name, data in every.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(data, encoding="utf-8", newline="")
            packing.add(archive, name, data)
    text = ZIP.sub(rf'<a class="kn-data-zip" download href="../../{DATA}/data.zip">\1</a>', text)
    page.write_text(text, encoding="utf-8")
