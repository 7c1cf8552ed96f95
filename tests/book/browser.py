"""What a reader's browser says about a page. Every check returns a list of problems; damaged copies must yield some."""

from __future__ import annotations

import functools
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ElementHandle, Page, Route, sync_playwright

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
THEBE = "Identifier 'THEBE_JS_URL' has already been declared"  # the theme says it on every page
THEME_RULES = {"label-content-name-mismatch", "region"}  # axe finds these in the theme's own frame
READY = """() => {
  const views = document.querySelectorAll('script[type="application/vnd.jupyter.widget-view+json"]').length;
  const named = [...document.querySelectorAll('.kn-explorer .noUi-handle')].every(e => e.ariaLabel);
  return document.querySelectorAll('.kn-explorer .kn-frame').length >= views && named;
}"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """One headless browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """The address of a server of `folder` on 127.0.0.1."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@dataclass
class Visit:
    """A page as opened, and what went wrong since."""

    page: Page
    problems: list[str] = field(default_factory=list)
    thebe: int = 0
    asked: int = 0
    open: set[str] = field(default_factory=set)  # requests that have no answer yet

    def settle(self) -> None:
        """Wait until every request is answered and no new one comes for a moment."""
        quiet, before = 0, -1
        for _ in range(100):
            self.page.wait_for_timeout(100)
            quiet, before = (quiet + 1 if not self.open and before == self.asked else 0), self.asked
            if quiet == 2:
                return
        self.problems += [f"no answer for {url}" for url in sorted(self.open)]

    def ask(self, url: str) -> None:
        self.asked += 1
        self.open.add(url)

    def error(self, message: str) -> None:
        if message == THEBE:
            self.thebe += 1
        else:
            self.problems.append(f"page error: {message}")


@contextmanager
def visit(
    browser: Browser, url: str, *, width: int = 1200, scheme: str = "light", script: bool = True, until: str = "idle"
) -> Iterator[Visit]:
    """`url` in a fresh context in which only this machine can be reached; it notes errors and requests that fail.

    `until` says how long to wait: "loaded", "shown" (every explorer is there) or "idle" (and no request is open).
    """
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,  # type: ignore[arg-type]
        java_script_enabled=script,
        reduced_motion="reduce",
    )
    seen = Visit(context.new_page())

    def route(request: Route) -> None:
        if urlsplit(request.request.url).hostname in (None, "127.0.0.1"):
            request.continue_()
        else:
            seen.problems.append(f"asks for {request.request.url}")
            request.abort()

    context.route("**/*", route)
    seen.page.on("request", lambda request: seen.ask(request.url))
    for ended in ("requestfinished", "requestfailed"):
        seen.page.on(ended, lambda request: seen.open.discard(request.url))  # type: ignore[call-overload]
    seen.page.on("pageerror", lambda error: seen.error(error.message))
    seen.page.on("requestfailed", lambda r: seen.problems.append(f"request failed: {r.url} ({r.failure})"))
    seen.page.on("response", lambda r: r.status >= 400 and seen.problems.append(f"{r.status} for {r.url}"))
    try:
        seen.page.goto(url)
        if script and until != "loaded":
            wait(lambda: seen.page.evaluate(READY), 8) or seen.problems.append("the explorers do not appear")
        if script and until == "idle":
            seen.settle()
        yield seen
    finally:
        context.close()


def wait(true: Callable[[], Any], seconds: float = 2.0) -> Any:
    """What `true()` gives once it gives something true, or its last answer after `seconds`."""
    end = time.monotonic() + seconds
    while not (answer := true()) and time.monotonic() < end:
        time.sleep(0.02)
    return answer


# Moving the controls ------------------------------------------------------------------------------------------------

STATE = """(root) => {
  const shown = {};
  const name = (e) => e.querySelector('.widget-label')?.textContent.trim();
  for (const e of root.querySelectorAll('.widget-slider'))
    shown[name(e)] = e.querySelector('.widget-readout').textContent;
  for (const e of root.querySelectorAll('.widget-dropdown')) {
    const select = e.querySelector('select');
    shown[name(e)] = select.options[select.selectedIndex]?.textContent.replaceAll('\u00a0', ' ');
  }
  for (const e of root.querySelectorAll('.widget-toggle-buttons'))
    shown[name(e)] = e.querySelector('.mod-active')?.textContent.trim();
  const frames = [...root.querySelectorAll('.kn-frame')].filter((e) => e.checkVisibility());
  return {
    shown,
    frames: frames.length,
    values: frames.length ? JSON.parse(frames[0].dataset.knValues) : {},
    picture: frames.length ? frames[0].innerHTML : '',
  };
}"""

# The field above each long table must hide the rows without the words typed, and bring them back.  JupyterLab runs no
# script of the book's, and shows the plain table.
SEARCH = """() => [...document.querySelectorAll('body:not(:has(.jp-Notebook)) .kn-search')].map((box) => {
  const shown = () => [...box.querySelectorAll('tbody tr')].filter((e) => e.checkVisibility());
  const field = box.querySelector('label input'), all = shown().length;
  if (!field) return 'a table to search without a field';
  const type = (text) => { field.value = text; field.dispatchEvent(new Event('input')); return shown(); };
  const words = shown()[all >> 1].textContent.toUpperCase().split(/\\s+/).slice(0, 2);
  const some = type(words.join(' '));
  const right = some.every((e) => words.every((word) => e.textContent.toUpperCase().includes(word)));
  if (!right || some.length < 1 || some.length >= all) return `${words} finds ${some.length} of ${all} rows`;
  if (!box.querySelector('output').textContent.startsWith(some.length + ' of')) return 'the count is wrong';
  if (type('no such row').length || type('').length !== all) return 'rows stay, or do not come back';
  return '';
}).filter((problem) => problem)"""

STRANGERS = """() => [...document.querySelectorAll('.widget-subarea, .cell_output')].flatMap((output) =>
  [...output.querySelectorAll('input, select, button, textarea, [role=slider], [contenteditable=true]')]
    .filter((e) => e.checkVisibility() && !e.closest('.kn-explorer, .kn-search, .copybtn, .toggle-details'))
    .map((e) => e.outerHTML.slice(0, 120)))"""


@dataclass
class Control:
    """One control: what kind, how many positions, and how to put it at one of them."""

    kind: str
    name: str
    count: int
    put: Callable[[int], None]


def controls(page: Page, explorer: ElementHandle) -> list[Control]:
    """Every control of one explorer but its Play buttons."""
    found = []
    for slider in explorer.query_selector_all(".widget-slider"):
        handle = slider.query_selector(".noUi-handle")
        assert handle is not None
        found.append(Control("slider", _name(slider), _last(handle) + 1, functools.partial(_slide, handle)))
    for dropdown in explorer.query_selector_all(".widget-dropdown"):
        select = dropdown.query_selector("select")
        assert select is not None
        count = len(select.query_selector_all("option"))
        found.append(Control("dropdown", _name(dropdown), count, lambda i, s=select: s.select_option(index=i)))
    for group in explorer.query_selector_all(".widget-toggle-buttons"):
        buttons = group.query_selector_all("button")
        found.append(Control("buttons", _name(group), len(buttons), lambda i, b=buttons: b[i].click()))
    return found


def _name(control: ElementHandle) -> str:
    label = control.query_selector(".widget-label")
    return (label.text_content() or "").strip() if label else ""


def _last(handle: ElementHandle) -> int:
    return round(float(handle.get_attribute("aria-valuemax") or 0))


def _slide(handle: ElementHandle, position: int) -> None:
    """Put a slider at `position` by the keyboard, as a reader without a mouse does."""
    now = round(float(handle.get_attribute("aria-valuenow") or 0))
    if position == 0:
        handle.press("Home")
    elif position == _last(handle):
        handle.press("End")
    else:
        for _ in range(abs(position - now)):
            handle.press("ArrowRight" if position > now else "ArrowLeft")


def move_everything(page: Page) -> tuple[list[str], list[str]]:
    """(problems, what was moved): every control to every position; the picture must follow the readouts."""
    problems, moved = [f"a control outside an explorer: {html}" for html in page.evaluate(STRANGERS)], []
    problems += page.evaluate(SEARCH)
    for explorer in page.query_selector_all(".kn-explorer"):
        head = explorer.query_selector(".kn-head b")
        title = (head.text_content() if head else None) or "an explorer without a title"
        axes = controls(page, explorer)
        plays = explorer.query_selector_all(".widget-play")
        found = _move_one(explorer, axes) if axes else ["no control at all"]
        found = found or [problem for play in plays for problem in _play(explorer, play)]
        problems += [f'"{title}": {problem}' for problem in found]
        kinds = [f"{axis.kind} {axis.name} ({axis.count})" for axis in axes] + ["play"] * len(plays)
        moved.append(f"{title}: {', '.join(kinds)}")
    return problems, moved


def put_all_last(page: Page) -> None:
    """Every control of the page at its last position, where pictures are fullest."""
    for explorer in page.query_selector_all(".kn-explorer"):
        for axis in controls(page, explorer):
            axis.put(axis.count - 1)
        _disagrees(explorer)


def _disagrees(explorer: ElementHandle) -> str:
    """Empty when, after a moment, one frame shows and is the one the controls name; else what they say."""
    seen: dict[str, Any] = {}

    def settled() -> bool:
        seen.update(explorer.evaluate(STATE))
        return seen["frames"] == 1 and seen["values"] == seen["shown"]

    if wait(settled):
        return ""
    return f"the controls say {json.dumps(seen['shown'])}, {seen['frames']} picture(s) of {json.dumps(seen['values'])}"


def _move_one(explorer: ElementHandle, axes: list[Control]) -> list[str]:
    """Walk the first control through all positions, the second to its ends at each, then through all its own."""
    if wrong := _disagrees(explorer):
        return [f"at the start {wrong}"]
    first, *others = axes
    steps = []
    for position in [*range(1, first.count), 0]:
        steps.append((first, position))
        steps += [(other, at) for other in others for at in (other.count - 1, 0)]
    steps += [(other, at) for other in others for at in [*range(1, other.count), 0]]
    pictures: dict[str, set[str]] = {axis.name: set() for axis in axes}
    for axis, position in steps:
        axis.put(position)
        if wrong := _disagrees(explorer):
            return [f"{axis.kind} {axis.name} at {position}: {wrong}"]
        pictures[axis.name].add(_picture(explorer))
    return [f"control {name}: the picture is always the same" for name, seen in pictures.items() if len(seen) < 2]


def _picture(explorer: ElementHandle) -> str:
    return str(explorer.evaluate(STATE)["picture"])


def _play(explorer: ElementHandle, play: ElementHandle) -> list[str]:
    """Play must move the picture by itself, pause must hold it, stop must bring back the first one."""
    first, stop = play.query_selector_all("button")[:2]
    stop.click()
    _disagrees(explorer)
    start = _picture(explorer)
    first.click()
    seen = {start}
    if not wait(lambda: seen.add(_picture(explorer)) or len(seen) > 2 or _at_end(explorer, seen), 5):
        return [f"play: the picture stands still, {_disagrees(explorer) or 'as do the controls'}"]
    problems = []
    if not _at_end(explorer, seen):
        first.click()
        time.sleep(0.1)
        held = _picture(explorer)
        time.sleep(1.0)
        problems += ["play: pause does not hold the picture"] if _picture(explorer) != held else []
    problems += [f"after play {wrong}"] if (wrong := _disagrees(explorer)) else []
    stop.click()
    if not wait(lambda: _picture(explorer) == start):
        problems.append("play: stop does not bring back the first picture")
    return problems


def _at_end(explorer: ElementHandle, seen: set[str]) -> bool:
    """Whether a film of two pictures has been played: more than two cannot be seen then."""
    handle = explorer.query_selector(".noUi-handle")
    return (
        len(seen) > 1
        and handle is not None
        and handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemax")
    )


# Reading ------------------------------------------------------------------------------------------------------------

NARROW = """() => {
  const problems = [];
  const wide = document.documentElement.scrollWidth;
  if (wide > innerWidth) problems.push(`the page is ${wide} px wide, the screen ${innerWidth}`);
  for (const e of document.querySelectorAll('.bd-article .kn-card svg, .bd-article table, .bd-article pre')) {
    if (!e.checkVisibility()) continue;
    for (let a = e; a && a !== document.body; a = a.parentElement) {
      if (['auto', 'scroll'].includes(getComputedStyle(a).overflowX)) break;
      const cuts = ['hidden', 'clip'].includes(getComputedStyle(a.parentElement).overflowX);
      if (cuts && e.getBoundingClientRect().right > a.parentElement.getBoundingClientRect().right + 1) {
        problems.push(`clipped: ${e.outerHTML.slice(0, 100)}`);
        break;
      }
    }
    const box = e.closest('.kn-scroll');
    if (box && box.scrollWidth > box.clientWidth && box.tabIndex < 0) problems.push('scrolls, but not by keyboard');
  }
  for (const t of document.querySelectorAll('.kn-card svg[role=img] text')) {
    if (!t.checkVisibility()) continue;
    const sizes = [t, ...t.querySelectorAll('tspan')].map((e) => parseFloat(getComputedStyle(e).fontSize));
    const used = t.children.length ? Math.max(...sizes.slice(1)) : sizes[0];
    const m = t.getScreenCTM(), size = used * Math.hypot(m.a, m.b);
    if (size < 8.9) problems.push(`"${t.textContent}" is ${size.toFixed(1)} px high`);
  }
  return problems;
}"""

CONTRAST = """() => {
  const rgb = (text) => (text.match(/[\\d.]+/g) ?? [255, 255, 255]).map(Number);
  const lum = (c) => {
    const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = c.slice(0, 3).map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const problems = [];
  for (const svg of document.querySelectorAll('.kn-card svg[role=img]')) {
    if (!svg.checkVisibility()) continue;
    svg.scrollIntoView({ block: 'center' });
    const card = rgb(getComputedStyle(svg.closest('.kn-card')).backgroundColor);
    for (const text of svg.querySelectorAll('text')) {
      const box = text.getBoundingClientRect();
      const ink = rgb(getComputedStyle(text.querySelector('tspan') ?? text).fill);
      let behind = card;
      for (const e of document.elementsFromPoint(box.x + box.width / 2, box.y + box.height / 2)) {
        if (!svg.contains(e) || e === svg || e.closest('text')) continue;
        const style = getComputedStyle(e);
        if (style.fill === 'none' || e.tagName === 'image') continue;
        const part = parseFloat(style.fillOpacity) * parseFloat(style.opacity), fill = rgb(style.fill);
        behind = card.slice(0, 3).map((v, k) => v * (1 - part) + fill[k] * part);
        break;
      }
      const [a, b] = [lum(ink), lum(behind)].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05);
      if (ratio < 4.5) problems.push(`"${text.textContent}" in a picture has a contrast of ${ratio.toFixed(1)}`);
    }
  }
  scrollTo(0, 0);
  return problems;
}"""

AXE = """async () => {
  const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice'];
  const result = await axe.run(document, { runOnly: tags, resultTypes: ['violations'] });
  return result.violations.map((v) => ({ id: v.id, where: v.nodes.map((n) => n.target.join(' ') + ' ' + n.html) }));
}"""

INSIDE = """(target) => !!document.querySelector(target)?.closest('.bd-article')"""


def theme(page: Page) -> str:
    """Which of its two faces a page shows: "light" or "dark"."""
    return str(page.evaluate("document.documentElement.dataset.theme"))


def narrow(page: Page) -> list[str]:
    """What a reader with a narrow screen misses: clipped pictures, a page that moves sideways, text below 9 px."""
    return list(page.evaluate(NARROW))


def contrast(page: Page) -> list[str]:
    """Text in pictures that does not stand out from what lies behind it."""
    return list(dict.fromkeys(page.evaluate(CONTRAST)))


def accessibility(page: Page, axe: Path) -> list[str]:
    """What axe-core finds, but for the two rules that the theme's own frame breaks."""
    page.evaluate(axe.read_text())
    found = []
    for violation in page.evaluate(AXE):
        for where in violation["where"]:
            target = where.split(" <", 1)[0]
            if violation["id"] in THEME_RULES and not page.evaluate(INSIDE, target):
                continue
            found.append(f"axe {violation['id']}: {where[:160]}")
    return found


def stills(page: Page, expected: int) -> list[str]:
    """Whether the still version of every explorer shows, with a picture and its mark (print, no JavaScript)."""
    shown = [e for e in page.query_selector_all(".kn-still") if e.is_visible()]
    problems = (
        [] if len(shown) == expected else [f"{len(shown)} still versions are visible, {expected} explorers exist"]
    )
    for still in shown:
        frame, mark = still.query_selector(".kn-frame"), still.query_selector(".kn-provenance")
        if not (frame and frame.is_visible() and mark and mark.is_visible()):
            problems.append("a still version without a picture or without a mark")
    problems += ["an explorer shows beside it"] * any(e.is_visible() for e in page.query_selector_all(".kn-explorer"))
    return problems
