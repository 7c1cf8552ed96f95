"""The book on paper: tagged, with an outline, and no figure larger than a page."""

from __future__ import annotations

import re
from pathlib import Path

import pdf
import pytest
from playwright.sync_api import Browser

import book

HEIGHT = 994  # CSS pixels that a page of paper has between its margins: 297 - 16 - 18 mm
WIDTH = 680
TALL = """(most) => [...document.querySelectorAll('article svg, article img, article .kn-card')]
  .filter((e) => e.getBoundingClientRect().height > most).map((e) => e.outerHTML.slice(0, 80))"""
CUT = """(most) => [...document.querySelectorAll('article svg, article img')]
  .filter((e) => e.getBoundingClientRect().right > most + 2).map((e) => e.outerHTML.slice(0, 80))"""


def test_a_page_is_printed_tagged_with_its_headings(site: Path, browser: Browser, tmp_path: Path) -> None:
    pdf.together(browser, [site / "book/refault/01-two-lists.html"], tmp_path / "page.pdf")
    made = (tmp_path / "page.pdf").read_bytes()
    assert made.startswith(b"%PDF-")
    assert b"/StructTreeRoot" in made
    assert b"/Outlines" in made
    assert len(re.findall(rb"/Type /Page\b[^s]", made)) > 3
    assert b"(file:" not in made  # no link leads to this machine


def test_pages_together_are_as_many_sheets_and_their_links_lead_within(
    site: Path, browser: Browser, tmp_path: Path
) -> None:
    paths = [site / "book/changelog.html", site / "book/type-your-struct.html", site / "book/glossary.html"]
    for path in paths:
        pdf.together(browser, [path], tmp_path / f"{path.stem}.pdf")
    pdf.together(browser, paths, tmp_path / "whole.pdf")
    sheets = {p.stem: len(re.findall(rb"/Type /Page\b[^s]", p.read_bytes())) for p in tmp_path.glob("*.pdf")}
    assert sheets["whole"] == sum(count for name, count in sheets.items() if name != "whole")
    made = (tmp_path / "whole.pdf").read_bytes()
    assert b"/StructTreeRoot" in made
    assert b"(file:" not in made
    assert b"page-1-" in made  # where the changelog's link to the second page leads


@pytest.mark.parametrize("name", [name for name in book.toc_files() if "/0" in name])
def test_no_figure_is_larger_than_paper(site: Path, browser: Browser, name: str) -> None:
    with pdf.opened(browser, site / f"{name}.html") as page:
        page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
        page.add_style_tag(content=pdf.STYLE)
        page.emulate_media(media="print")
        assert page.evaluate(TALL, HEIGHT) == []
        assert page.evaluate(CUT, WIDTH) == []
