"""The index of figures and tables names what the chapters show, and the data it gives are theirs."""

from __future__ import annotations

import csv
import re
import zipfile
from pathlib import Path

import figure_index
import notebooks
import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[2]
# What draws a connection, a sequence of messages, a log or a history: no data but the picture itself.
DIAGRAMS = {
    "What became of the three mechanisms",
    "Both streams to the same scale, in bytes",
    "A stream that wraps around",
    "Repair mode ends (numbers count from the first packet)",
    "From the article to today",
    "systemd on no fix, 32-on-64",
    "single read on no fix, 32-on-64",
    "automount 5.0.6 on Kent, 3.0.24, 32-on-64",
    "Who changed what, and who was served then",
    "From the automounter's own log",
}


@pytest.fixture(scope="module")
def chapters(site: Path) -> dict[str, list[figure_index.Shown]]:
    names = [path.relative_to(ROOT / "book").with_suffix("").as_posix() for path in notebooks.chapters(ROOT)]
    return {name: list(figure_index.shown((site / "book" / f"{name}.html").read_text())) for name in names}


def test_every_figure_and_table_of_every_chapter_is_in_the_index(site, chapters):
    index = BeautifulSoup((site / figure_index.PAGE).read_text(), "html.parser")
    links = [(link["href"], link.get_text()) for link in index.select("ul.kn-index a:not(.kn-csv)")]
    assert links == [(f"../{name}.html#{one.section}", one.title) for name, every in chapters.items() for one in every]
    assert all(4 <= len(title) <= 120 for _, title in links)
    for name, every in chapters.items():
        page = BeautifulSoup((site / "book" / f"{name}.html").read_text(), "html.parser")
        assert len(every) >= 3, name
        outside = [
            one for one in page.select("figure.kn-out, table.kn-table") if not one.find_parent(class_="kn-still")
        ]
        assert len(outside) == sum(one.kind == "table" for one in every) + len(page.select("figure.kn-out")), name
        assert {one.mark for one in every} <= {"live", "recorded", "model"}


def test_charts_and_tables_carry_their_data(chapters):
    every = [one for shown in chapters.values() for one in shown]
    assert [one.title for one in every if one.kind == "table" and not one.data] == []
    assert {one.title for one in every if one.kind == "figure" and not one.data} == DIAGRAMS
    assert not any("<wbr" in one.data or "&lt;" in one.data for one in every)


def test_the_files_are_the_data_that_the_chapters_carry(site, chapters):
    folder = site / figure_index.DATA
    index = BeautifulSoup((site / figure_index.PAGE).read_text(), "html.parser")
    files = [site / figure_index.PAGE / ".." / link["href"] for link in index.select("ul.kn-index a.kn-csv")]
    kept = [one.data for shown in chapters.values() for one in shown if one.data]
    assert [path.resolve().read_text() for path in files] == kept
    for path in files:
        rows = list(csv.reader(path.resolve().read_text().splitlines()))
        assert len(rows) >= 2
        assert len({len(row) for row in rows}) == 1
    with zipfile.ZipFile(folder / "data.zip") as packed:
        assert [packed.read(name).decode() for name in packed.namelist()] == kept
    assert len(re.findall(r'<a class="kn-data-zip"', (site / figure_index.PAGE).read_text())) == 1


PAGE = """<section id="one"><h1>One<a class="headerlink">#</a></h1>
<div class="kn-out kn-note"><pre>a note</pre></div>
<figure class="kn-out"><div aria-label="Long words."></div><figcaption><span>What it shows. And more.</span>
<span class="kn-provenance kn-live"><b>live:</b> Linux</span>
<a class="kn-csv" href="data:text/csv;charset=utf-8,a%2Cb%0A1%2C2%0A">CSV</a></figcaption></figure>
<section id="two"><h2><span class="section-number">1.2. </span>Two &amp; more</h2>
<div class="kn-out"><ol><li>a timeline</li></ol><span class="kn-provenance"><b>model, input recorded:</b></span></div>
<div class="kn-out kn-still" hidden>
<div class="kn-head"><b>Moves</b><span class="kn-provenance"><b>model</b></span></div>
<div class="kn-out"><table class="kn-table"></table></div></div></section></section>"""


def test_titles_come_from_captions_heads_and_headings():
    assert list(figure_index.shown(PAGE)) == [
        ("figure", "What it shows", "one", "live", "a,b\n1,2\n"),
        ("figure", "Two & more", "two", "model", ""),
        ("with a control", "Moves", "two", "model", ""),
    ]


def test_a_book_without_the_page_is_left_alone(tmp_path):
    figure_index.fill(tmp_path)
    assert list(tmp_path.iterdir()) == []
