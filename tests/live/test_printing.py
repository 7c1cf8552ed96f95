"""PDFs by the browser of this machine."""

import pytest

from kernelnotes import quiz
from kernelnotes.errors import Unavailable
from kernelnotes.live import printing
from kernelnotes.quiz import sheets


@pytest.mark.needs(program="chromium")
def test_a_pdf_is_tagged_and_has_all_pages():
    made = printing.pdf(sheets.sheet(quiz.problems("repair", 1, 6), "html"))
    assert made.startswith(b"%PDF-")
    assert b"/StructTreeRoot" in made
    assert made.count(b"/Type /Page\n") >= 3


def test_without_a_browser_it_is_told(monkeypatch):
    monkeypatch.setattr(printing, "BROWSERS", ("no-such-browser",))
    with pytest.raises(Unavailable, match="a PDF needs one of no-such-browser"):
        printing.pdf("<p>")


@pytest.mark.needs(program="chromium")
def test_a_browser_that_takes_too_long_is_ended(monkeypatch):
    monkeypatch.setattr(printing, "PATIENCE", 0.01)
    with pytest.raises(Unavailable, match=r"did not print within 0.01 s"):
        printing.pdf("<p>")
