"""Print the book: a tagged PDF of each page and one of the whole, with the outline of its headings.

    python tools/pdf.py              # _build/pdf/*.pdf and _build/pdf/kernelnotes.pdf

Chromium prints the pages of the built book, with what they show at first: a figure with controls is printed at its
first frame. Nothing comes from a network.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

import book

CHROMIUM = "/usr/bin/chromium"
SHOWN = """() => document.querySelectorAll('.kn-explorer .kn-frame').length >=
  document.querySelectorAll('script[type="application/vnd.jupyter.widget-view+json"]').length"""
FOOTER = (
    '<div style="font:8px sans-serif;width:100%;text-align:center;color:#555">'
    'kernelnotes, <span class="title"></span>, page <span class="pageNumber"></span></div>'
)
# An article with ids of its own and links that lead within the paper, where their page is printed too, or nowhere.
ARTICLE = """([prefix, printed]) => {
  const article = document.querySelector('article').cloneNode(true);
  for (const one of article.querySelectorAll('[id]')) if (!one.closest('svg')) one.id = prefix + one.id;
  for (const one of article.querySelectorAll('a[href]')) {
    const url = new URL(one.getAttribute('href'), location.href), page = printed[url.pathname];
    if (url.protocol !== 'file:') continue;
    if (page === undefined) one.removeAttribute('href');
    else one.setAttribute('href', '#' + page + url.hash.slice(1));
  }
  return article.innerHTML;
}"""
JOINED = """(articles) => { document.querySelector('article').innerHTML = articles.map(([prefix, one], k) =>
  `<section id="${prefix}" style="break-before: ${k ? 'page' : 'auto'}">${one}</section>`).join(''); }"""
# A page as paper wants it: the article alone, and no figure, table or listing cut in two if it fits on a page.
STYLE = """
@media print {
  .bd-sidebar-primary, .bd-sidebar-secondary, .bd-header, .bd-header-article, footer, .prev-next-footer,
  .copybtn, .kn-csv, form.kn-pad, noscript, #pst-skip-link, .pst-scroll-pixel-helper, .kn-search label {
    display: none !important; }
  .bd-main, .bd-content, .bd-article-container, .bd-article { max-width: 100% !important; width: 100% !important;
    padding: 0 !important; margin: 0 !important; display: block !important; }
  svg, img, .kn-card, figure, .kn-bytes tr, .kn-table tr { break-inside: avoid; max-width: 100% !important; }
  h1, h2, h3 { break-after: avoid; }
  div.cell_input, div.highlight { break-inside: avoid; }
  pre { white-space: pre-wrap !important; overflow: visible !important; }
  .cell_output, .kn-scroll, .kn-wide-table { overflow: visible !important; max-height: none !important; }
}
"""


def pages(site: Path) -> list[Path]:
    """The pages of the book, in its order."""
    return [site / f"{name}.html" for name in book.toc_files()]


@contextmanager
def opened(browser: Browser, path: Path) -> Iterator[Page]:
    """A page of the book, when all its figures are there."""
    context = browser.new_context(color_scheme="light", reduced_motion="reduce", offline=True)
    try:
        page = context.new_page()
        page.goto(path.as_uri())
        page.wait_for_function(SHOWN, timeout=60_000)
        yield page
    finally:
        context.close()


def prints(page: Page, made: Path) -> None:
    """Print what is open."""
    page.add_style_tag(content=STYLE)
    page.wait_for_timeout(200)
    page.pdf(
        path=str(made),
        **{"tagged": True, "outline": True, "print_background": True, "display_header_footer": True},
        header_template="<span></span>",
        footer_template=FOOTER,
        format="A4",
        margin={"top": "16mm", "bottom": "18mm", "left": "15mm", "right": "15mm"},
    )


def together(browser: Browser, paths: list[Path], made: Path) -> None:
    """Print pages into one paper: their articles, one behind the other, in the frame of the first."""
    prefixes = {path: f"page-{number}-" for number, path in enumerate(paths)}
    printed = {path.as_posix(): prefix for path, prefix in prefixes.items()}
    with opened(browser, paths[0]) as frame:
        articles = [[prefixes[paths[0]], frame.evaluate(ARTICLE, [prefixes[paths[0]], printed])]]
        for path in paths[1:]:
            with opened(browser, path) as page:
                articles.append([prefixes[path], page.evaluate(ARTICLE, [prefixes[path], printed])])
        frame.evaluate(JOINED, articles)
        prints(frame, made)


def make() -> Path:
    """Print everything that is printed; the folder."""
    book.make()
    target = book.ROOT / "_build" / "pdf"
    target.mkdir(parents=True, exist_ok=True)
    for old in target.glob("*.pdf"):
        old.unlink()
    start = time.monotonic()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        paths = pages(book.site())
        for path in paths:
            name = path.relative_to(book.site() / "book").with_suffix(".pdf").as_posix().replace("/", "-")
            together(browser, [path], target / name)
        made = target / "kernelnotes.pdf"
        together(browser, paths, made)
        browser.close()
    for path in sorted(target.glob("*.pdf")):
        print(f"  {path.stat().st_size / 1e6:6.2f} MB  {path.name}")
    print(f"pdf: printed in {time.monotonic() - start:.0f} s; open\n  {made}")
    return target


if __name__ == "__main__":
    make()
    sys.exit()
