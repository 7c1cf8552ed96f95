"""The checks can fail: each takes a copy of the toy book with one thing broken and must find it."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import browser as browsing
import pages
import pytest
from playwright.sync_api import Browser

PAGE = "book/every-control.html"


@pytest.fixture
def copy(toy_site: Path, tmp_path: Path) -> Path:
    """The toy book, file by file linked to the original: `change` replaces a file without touching that."""
    return shutil.copytree(toy_site, tmp_path / "html", copy_function=os.link)


def change(path: Path, old: str, new: str = "") -> None:
    text = path.read_text()
    assert old in text, f"{path.name} has no {old!r}"
    path.unlink()
    path.write_text(text.replace(old, new))


def cut_link(site: Path, source: str, nth: int) -> None:
    """Take the `nth` link that starts at a widget of model `source` out of the page's widget state."""
    path = site / PAGE
    state = pages.Page(path).state
    links = [
        key
        for key, model in state.items()
        if model["model_name"] == "LinkModel"
        and state[model["state"]["source"][0].removeprefix("IPY_MODEL_")]["model_name"] == source
    ]
    del state[links[nth]]
    text = path.read_text()
    path.unlink()
    whole = json.dumps({"version_major": 2, "version_minor": 0, "state": state}).replace("</", "<\\/")
    path.write_text(
        re.sub(
            rf'(<script type="{re.escape(pages.STATE)}">).*?(?=</script>)',
            lambda m: m[1] + whole,
            text,
            flags=re.DOTALL,
        )
    )


def seen_by_a_reader(browser: Browser, site: Path, page: str = PAGE) -> list[str]:
    with browsing.visit(browser, (site / page).as_uri()) as seen:
        return browsing.move_everything(seen.page)[0] + seen.problems


def test_the_undamaged_copy_is_clean(copy: Path, browser: Browser) -> None:
    assert seen_by_a_reader(browser, copy) + pages.problems(copy) == []


def test_without_the_fontawesome_mend_play_is_found_broken(copy: Path, browser: Browser) -> None:
    change(copy / "_static/kn-config.js", 'window.FontAwesomeConfig = { autoReplaceSvg: "nest" };')
    found = seen_by_a_reader(browser, copy)
    print(*found, sep="\n")
    assert any("className" in problem for problem in found)
    assert any("Play and slider" in problem and "the controls say" in problem for problem in found)


def test_without_the_mathjax_mend_a_page_with_formulas_is_found_broken(copy: Path, browser: Browser) -> None:
    change(copy / "_static/kn-config.js", "{ value: { Queue() {} } }", "{ value: undefined }")
    found = seen_by_a_reader(browser, copy)
    print(*found, sep="\n")
    assert any("Queue" in problem for problem in found)


def test_a_field_that_hides_no_row_is_found(copy: Path, browser: Browser) -> None:
    change(copy / "_static/kn-search.js", "row.hidden = ")
    assert any("finds 4 of 4 rows" in problem for problem in seen_by_a_reader(browser, copy))


@pytest.mark.parametrize(
    ("source", "nth"),
    [("SelectionSliderModel", 0), ("SelectionSliderModel", 3), ("PlayModel", 0), ("DropdownModel", 0)],
)
def test_a_missing_link_is_found(copy: Path, browser: Browser, source: str, nth: int) -> None:
    cut_link(copy, source, nth)
    found = seen_by_a_reader(browser, copy)
    print(*found, *pages.controls(copy), sep="\n")
    assert any("the controls say" in problem or "stands still" in problem for problem in found)
    assert pages.controls(copy)


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("embed.js", PAGE),
        ("mathjax/tex-mml-chtml.js", "book/intro.html"),
        ("mathjax/output/chtml/fonts/woff-v2/MathJax_Math-Italic.woff", "book/intro.html"),
    ],
)
def test_a_missing_vendored_file_is_found(copy: Path, browser: Browser, name: str, page: str) -> None:
    (copy / "_static/vendor" / name).unlink()
    found = seen_by_a_reader(browser, copy, page)
    print(*found, sep="\n")
    assert any("request failed" in problem for problem in found)


@pytest.mark.parametrize(
    ("old", "new", "check"),
    [
        ('href="intro.html"', 'href="outro.html"', pages.links),
        ('href="#"', 'href="#nowhere"', pages.links),
        ("</body>", '<img src="https://elsewhere.invalid/x.png" alt=""></body>', pages.external),
        ("kn-provenance", "kn-nothing", pages.marks),
        ("</body>", f"<!--{os.urandom(400_000).hex()}--></body>", pages.budget),
    ],
)
def test_damage_is_found_without_a_browser(copy: Path, old: str, new: str, check: object) -> None:
    change(copy / PAGE, old, new)
    found = check(copy)  # type: ignore[operator]
    print(*found, sep="\n")
    assert found


@pytest.mark.parametrize(
    ("old", "new", "check"),
    [
        (".kn-card svg{", ".kn-card{color:#ddd}.kn-card svg text{fill:#ddd!important}.kn-card svg{", "contrast"),
        (".kn-scroll{overflow-x:auto;", ".kn-scroll{overflow-x:hidden;", "narrow"),
        (".kn-still[hidden]{display:block!important}.kn-explorer", ".kn-explorer", "stills"),
    ],
)
def test_an_unreadable_page_is_found(copy: Path, browser: Browser, old: str, new: str, check: str) -> None:
    change(copy / PAGE, old, new)
    with browsing.visit(browser, (copy / PAGE).as_uri(), width=390, until="shown") as seen:
        if check == "stills":
            seen.page.emulate_media(media="print")
            found = browsing.stills(seen.page, 3)
        else:
            found = getattr(browsing, check)(seen.page)
    print(*found, sep="\n")
    assert found
