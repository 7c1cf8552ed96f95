"""Python in the reader's browser: the pages that compute, from a folder and from a server, without any network."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import browser as browsing
import pytest
from playwright.sync_api import Browser, Page

SOON = 120_000  # ms; it is a matter of seconds, but other tests may run beside this one
ENDED = "() => ['done', 'error', 'failed'].includes(document.querySelector('form.kn-pad').dataset.state)"
MOST = 8_000_000  # bytes, packed: what a click may load


def state(page: Page) -> str:
    page.wait_for_function(ENDED, timeout=SOON)
    return str(page.evaluate("() => document.querySelector('form.kn-pad').dataset.state"))


def again(page: Page) -> str:
    """What comes of a change: it is computed a moment after the last key."""
    page.wait_for_timeout(700)
    return state(page)


@pytest.fixture(params=["file", "http"])
def base(request: pytest.FixtureRequest, site: Path) -> Iterator[str]:
    if request.param == "file":
        yield site.as_uri()
    else:
        with browsing.serve(site) as address:
            yield address


def test_a_struct_is_laid_out_by_keyboard_alone(base: str, browser: Browser) -> None:
    with browsing.visit(browser, f"{base}/book/type-your-struct.html", width=390) as seen:
        page = seen.page
        asked = seen.asked
        page.focus("#kn-source")
        assert not page.evaluate("() => [...document.scripts].some((s) => s.src.includes('/python/'))")
        page.focus("form.kn-pad button[type=submit]")
        page.keyboard.press("Enter")
        assert state(page) == "done", page.inner_text(".kn-status")
        assert seen.asked > asked
        maps = page.locator(".kn-pad-out .kn-bytes caption").all_inner_texts()
        assert maps == [
            "struct autofs_v5_packet on x86-64: 304 bytes, alignment 8",
            "struct autofs_v5_packet on i386: 300 bytes, alignment 4",
        ]
        assert "tail padding" in page.inner_text(".kn-pad-out")
        wide = page.evaluate("() => document.documentElement.scrollWidth")
        assert wide <= 390
        # A mistake is shown at its line, and what was right before stays to be seen.
        page.focus("#kn-source")
        page.keyboard.press("Control+a")
        page.keyboard.type("struct ok { int a; };\nstruct p { foo b; };")
        page.focus("form.kn-pad button[type=submit]")
        page.keyboard.press("Enter")
        assert again(page) == "error"
        assert page.inner_text(".kn-status").startswith("Line 2, column 1: not a declaration")
        source = page.evaluate(
            "() => { const t = document.activeElement; return t.value.slice(t.selectionStart, t.selectionEnd); }"
        )
        assert source == "struct p { foo b; };"
        # Mended, it is laid out as it is typed.
        page.keyboard.type("struct p { long b; };")
        assert again(page) == "done"
        assert "width-dependent" in page.inner_text(".kn-pad-out")
        assert seen.problems == []


def test_accesses_are_stepped_through(base: str, browser: Browser) -> None:
    with browsing.visit(browser, f"{base}/book/step-your-accesses.html") as seen:
        page = seen.page
        page.fill("#kn-accesses", "A B A B C D E F C")
        page.click("form.kn-pad button[type=submit]")
        assert state(page) == "done", page.inner_text(".kn-status")
        rows = page.locator(".kn-steps tbody tr:visible")
        assert rows.count() == 1
        page.click("button[value=one]")
        assert rows.count() == 2
        assert not page.is_visible(".kn-counts")
        page.click("button[value=all]")
        assert rows.count() == 9
        assert "refault, R = 1; A demoted; E evicted" in rows.nth(8).inner_text()
        assert page.is_visible(".kn-counts")
        page.select_option("select[name=rules]", "opt")
        assert again(page) == "done"
        assert "opt, memory of 4 pages" in page.inner_text(".kn-pad-out")
        page.fill("input[name=memory]", "0")
        assert again(page) == "error"
        assert "memory is 0" in page.inner_text(".kn-status")
        assert seen.problems == []


def test_a_missing_part_is_named(site: Path, browser: Browser) -> None:
    with browsing.visit(browser, f"{site.as_uri()}/book/type-your-struct.html") as seen:
        seen.page.route("**/python/packages.zip.js", lambda route: route.abort())
        seen.page.click("form.kn-pad button[type=submit]")
        assert state(seen.page) == "failed"
        assert "packages.zip cannot be loaded" in seen.page.inner_text(".kn-status")


def test_a_click_loads_little_enough(site: Path) -> None:
    parts = sorted((site / "_static" / "python").glob("*.js"))
    assert len(parts) == 6
    assert sum(len(gzip.compress(part.read_bytes(), 6)) for part in parts) <= MOST
    page = (site / "book" / "type-your-struct.html").read_text()
    assert "_static/python/" not in page  # nothing before the click
    loaded = re.findall(r"""<(?:script|img|iframe|link rel="stylesheet")[^>]*(?:src|href)="([^"]+)\"""", page)
    assert loaded
    assert not [url for url in loaded if urlsplit(url).netloc]
