"""What can be checked in built pages without a browser; every check takes the site's folder and returns its problems.

    links         internal links and anchors lead somewhere
    external      no page asks anything of another host
    controls      every slider, dropdown and button moves a picture, every stack of pictures has a control
    marks         every output says whether it is live, recorded or model
    budget        no page is heavier than readers with a slow line can bear

Tests run the same functions on damaged copies, to show that they find the damage.
"""

from __future__ import annotations

import gzip
import json
import re
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

MAX_BYTES, MAX_GZIP = 4_000_000, 250_000  # of one page, beyond the theme
STATE, VIEW = "application/vnd.jupyter.widget-state+json", "application/vnd.jupyter.widget-view+json"
LOADS = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "object": "data",
    "link": "href",
}
CONTROL = re.compile(
    r"Slider|Play|Dropdown|Select|Radio|Toggle|Checkbox|Button|Text(area)?Model|Picker|Upload|Tags|Input"
)
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


class Page(HTMLParser):
    """One HTML file: its ids, what it links to and loads, its cell outputs and its widgets."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.outputs: list[dict[str, Any]] = []  # {"line", "marked", "views": [model id], "size": characters}
        self.state: dict[str, Any] = {}
        self._open: list[bool] = []  # for every open <div>: is it a cell output?
        self._script = ""
        text = path.read_text(encoding="utf-8")
        self.feed(text)
        self.close()

    @property
    def _output(self) -> dict[str, Any] | None:
        return self.outputs[-1] if any(self._open) else None

    def handle_starttag(self, tag: str, pairs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in pairs}
        classes = attributes.get("class", "").split()
        self.ids.update(value for name in ("id", "name") if (value := attributes.get(name)))
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
        if tag in LOADS and LOADS[tag] in attributes and attributes.get("rel") not in ("next", "prev", "canonical"):
            self.loads.append(attributes[LOADS[tag]])
        if tag == "script":
            self._script = attributes.get("type", "javascript")
        if tag == "div":
            starts = "cell_output" in classes
            self._open.append(starts)
            if starts:
                self.outputs.append({"line": self.getpos()[0], "marked": False, "views": [], "size": 0})
        if (output := self._output) is not None:
            output["size"] += len(self.get_starttag_text() or "")
            output["marked"] |= "kn-provenance" in classes

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._script = ""
        if tag == "div" and self._open:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._script == STATE:
            self.state = json.loads(data)["state"]
        elif self._script == VIEW and self._output is not None:
            self._output["views"].append(json.loads(data)["model_id"])
        elif self._output is not None:
            self._output["size"] += len(data)

    def reach(self, model: str) -> dict[str, Any]:
        """The widget `model` and all it contains, {id: model}; a model that is not there is None."""
        found: dict[str, Any] = {}
        wanted = [model]
        while wanted:
            name = wanted.pop()
            if name not in found:
                found[name] = self.state.get(name)
                wanted += re.findall(r"IPY_MODEL_(\w+)", json.dumps(found[name]))
        return found

    def title(self, output: dict[str, Any]) -> str:
        """How a report calls an output: the heading of its explorer, or the line it stands in."""
        for view in output["views"]:
            for model in self.reach(view).values():
                if found := re.search(
                    r'class="kn-head"><b>(.*?)</b>', (model or {}).get("state", {}).get("value") or ""
                ):
                    return f'"{found[1]}"'
        return f"the output in line {output['line']}"


def pages(site: Path) -> dict[str, Page]:
    """{path relative to the site: Page} of every page but the redirect at the top; raises FileNotFoundError if none."""
    paths = sorted(path for path in site.rglob("*.html") if "_static" not in path.parts and path != site / "index.html")
    if not paths:
        raise FileNotFoundError(f"no pages below {site}")
    return {path.relative_to(site).as_posix(): Page(path) for path in paths}


def links(site: Path) -> list[str]:
    """Internal links, anchors and loaded files that do not exist, and an index.html that leads nowhere."""
    every, found = pages(site), []
    for name, page in every.items():
        for url in page.links + page.loads:
            parts = urlsplit(url)
            if parts.scheme or parts.netloc:
                continue
            target = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
            if not target.is_file():
                found.append(f"{name}: {url} does not exist")
            elif parts.fragment and target.suffix == ".html":
                key = target.relative_to(site.resolve()).as_posix() if parts.path else name
                if key in every and unquote(parts.fragment) not in every[key].ids:
                    found.append(f"{name}: {url} has no such anchor")
    index = site / "index.html"
    refresh = re.search(r"url=([^\"'>]+)", index.read_text()) if index.is_file() else None
    if refresh is None or not (site / refresh[1]).is_file():
        found.append("index.html does not lead to a page")
    return found


def external(site: Path) -> list[str]:
    """Files that a page would load from elsewhere; links that a reader may follow are no such thing."""
    found = []
    for name, page in pages(site).items():
        inner = re.findall(r"(?:src|poster|srcset)=\\?[\"']((?:https?:)?//[^\"'\\]+)", json.dumps(page.state))
        found += [f"{name}: loads {url}" for url in page.loads + inner if urlsplit(url).netloc]
    return found


def controls(site: Path) -> list[str]:
    """What does nothing in a page without Python: a control tied to no picture, a stack tied to no control."""
    found = []
    for name, page in pages(site).items():
        linked: dict[str, set[str]] = defaultdict(set)  # a graph: models that a link ties together
        for key, model in page.state.items():
            if re.fullmatch(r"(Directional)?LinkModel", model["model_name"]):
                ends = [model["state"][end][0].removeprefix("IPY_MODEL_") for end in ("source", "target")]
                found += [f"{name}: link {key} leads to a missing widget" for end in ends if end not in page.state]
                linked[ends[0]].add(ends[1])
                linked[ends[1]].add(ends[0])
        for output in page.outputs:
            for view in output["views"]:
                models = page.reach(view)
                found += [f"{name}: {page.title(output)} lacks widget {key}" for key, m in models.items() if m is None]
                for key, model in models.items():
                    kind = (model or {}).get("model_name", "")
                    is_control = CONTROL.search(kind) and not kind.endswith("StyleModel")
                    if not is_control and kind != "StackModel":
                        continue
                    tied = _tied(key, linked)
                    others = {page.state[other]["model_name"] for other in tied if other in page.state}
                    label = (model or {})["state"].get("description") or "without a name"
                    if is_control and "StackModel" not in others:
                        found.append(f"{name}: {page.title(output)}: {kind} {label} is dead, no picture follows it")
                    if kind == "StackModel" and not any(CONTROL.search(other) for other in others):
                        found.append(f"{name}: {page.title(output)}: pictures that no control moves")
    return found


def _tied(start: str, graph: dict[str, set[str]]) -> set[str]:
    """All that links, directly or by way of others, tie to `start`."""
    found, wanted = {start}, [start]
    while wanted:
        fresh = graph[wanted.pop()] - found
        found |= fresh
        wanted += fresh
    return found - {start}


def marks(site: Path) -> list[str]:
    """Outputs of cells without a visible provenance; an explorer needs it in the widget and in its still version."""
    found = []
    for name, page in pages(site).items():
        for output in page.outputs:
            inside = [
                "kn-provenance" in json.dumps([(m or {}).get("state", {}).get("value") for m in page.reach(v).values()])
                for v in output["views"]
            ]
            if not output["marked"] or not all(inside):
                found.append(f"{name}: {page.title(output)} does not say whether it is live, recorded or model")
    return found


def weights(site: Path) -> dict[str, tuple[int, int]]:
    """{page: (bytes, gzipped bytes)} beyond the theme, measured as the difference to the site's own empty page.

    That page is search.html, which the theme makes in the same build: its frame and scripts, and no content.
    """
    empty = (site / "search.html").read_bytes()
    found = {}
    for name, page in pages(site).items():
        data = page.path.read_bytes()
        packed = len(gzip.compress(data, 6)) - len(gzip.compress(empty, 6))
        found[name] = (max(0, len(data) - len(empty)), max(0, packed))
    return found


def budget(site: Path) -> list[str]:
    """Pages beyond 4 MB, or 250 kB gzipped, each with its heaviest outputs."""
    found = []
    for name, (size, packed) in weights(site).items():
        if size <= MAX_BYTES and packed <= MAX_GZIP:
            continue
        page = Page(site / name)
        heavy = sorted(
            (
                (output["size"] + sum(len(json.dumps(m)) for v in output["views"] for m in page.reach(v).values()), k)
                for k, output in enumerate(page.outputs)
            ),
            reverse=True,
        )
        worst = ", ".join(f"{page.title(page.outputs[k])} {weight / 1e6:.2f} MB" for weight, k in heavy[:3])
        found.append(
            f"{name}: {size / 1e6:.2f} MB, {packed / 1e3:.0f} kB gzipped beyond the theme, "
            f"at most {MAX_BYTES / 1e6:.0f} MB and {MAX_GZIP / 1e3:.0f} kB; heaviest: {worst}"
        )
    return found


CHECKS = (links, external, controls, marks, budget)


def problems(site: Path) -> list[str]:
    """Everything that every check finds, one line each."""
    return [problem for check in CHECKS for problem in check(site)]
