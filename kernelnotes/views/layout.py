"""Pictures of layouts: the bytes of a record on several ABIs side by side, and the census of a whole interface."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from kernelnotes.errors import BadInput
from kernelnotes.layout import Layout, bytemap
from kernelnotes.provenance import MODEL, Provenance
from kernelnotes.views.explorer import Frame
from kernelnotes.views.output import Output, below, csv_link, show, table
from kernelnotes.views.style import GREY, INK, PALETTE, figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = {  # a line for each in the census, from the one that is hardest to see; colour
    "tail padding": PALETTE["vermillion"],
    "interior shift": PALETTE["orange"],
    "nested record": PALETTE["purple"],
    "width-dependent": PALETTE["blue"],
    "definition differs": "#8c959f",
}
SAME_TYPES = ("tail padding", "interior shift", "nested record")  # every member has the same type on both ABIs


def byte_map(layouts: Layout | Sequence[Layout], caption: str = "") -> Output:
    """The bytes of one layout, or of several side by side; then what is not at the same place in all is marked.

    Raises BadInput where there is none.
    """
    several = _several(layouts)
    drawn = compared(several)
    origin = functools.reduce(Provenance.joined, (one.provenance for one in several))
    data = pd.concat([one.to_frame() for one in several], keys=[f"{one.record} on {one.abi.name}" for one in several])
    link = csv_link(data.reset_index(0, names="layout"), caption or f"Members of {several[0].record}")
    # Tables are their own text alternative: no card with another one around them.
    body = f'<div class="kn-out">{drawn.picture}<div class="kn-head">{below(caption, origin, link)}</div></div>'
    return Output(body, f"[layout, {origin}] {drawn.alt}\n" + "\n\n".join(map(str, several)))


def compared(layouts: Layout | Sequence[Layout]) -> Frame:
    """The maps side by side as a frame of an explorer, and sizes and differences in words."""
    several = _several(layouts)
    every = [{run.place: run.name for run in bytemap.runs(one)} for one in several]
    alike = set.intersection(*(set(places) for places in every))
    sizes = " ".join(
        f"{one.record} on {one.abi.name} is {one.size} bytes with an alignment of {one.align}, "
        f"{one.padding} bytes of padding at the end."
        for one in several
    )
    names = dict.fromkeys(name for places in every for place, name in places.items() if place not in alike)
    differing = f" What differs: {', '.join(names)}." if names else " Nothing differs." if len(several) > 1 else ""
    maps = "".join(f"<div>{bytemap.table(one, alike if len(several) > 1 else None)}</div>" for one in several)
    return Frame(f'<style>{bytemap.CSS}</style><div class="kn-maps">{maps}</div>', sizes + differing)


def _several(layouts: Layout | Sequence[Layout]) -> list[Layout]:
    several = [layouts] if isinstance(layouts, Layout) else list(layouts)
    if not several or not all(isinstance(one, Layout) for one in several):
        raise BadInput("expected one or more Layouts, as layout.layout returns them")
    return several


# The census ---------------------------------------------------------------------------------------------------------


def census(frame: pd.DataFrame, provenance: Provenance = MODEL, caption: str = "") -> Output:
    """How many records differ, by kind, and the headers with most of those whose types are all the same.

    frame : a row per record with the columns `kind` and `header` (file:line), as `layout.hazards` gives it.
    Raises BadInput for a frame without them or without rows.
    """
    _need(frame, "census", "kind", "header")
    kinds = frame["kind"].value_counts()
    order = [*(kind for kind in KINDS if kind in kinds), *(kind for kind in kinds.index if kind not in KINDS)]
    same = frame[frame["kind"].isin(SAME_TYPES)]
    by_header = same.groupby([same["header"].str.rpartition(":")[0], "kind"]).size().unstack(fill_value=0)
    by_header = by_header.loc[by_header.sum(axis=1).sort_values(ascending=False, kind="stable").index[:10]]
    drawn, _ = figure(height=1.1 + 0.3 * (len(order) + len(by_header)))
    drawn.clear()
    with style():
        above, below = drawn.subplots(2, 1, height_ratios=[len(order), max(1, len(by_header))])
        for k, kind in enumerate(order):
            _bar(above, k, 0, int(kinds[kind]), kind, str(int(kinds[kind])))
        above.set(yticks=range(len(order)), yticklabels=order, title="records that differ, by kind")
        for k, (_, counts) in enumerate(by_header.iterrows()):
            left = 0
            for kind in (kind for kind in SAME_TYPES if counts.get(kind, 0)):
                last = kind == [one for one in SAME_TYPES if counts.get(one, 0)][-1]
                _bar(below, k, left, int(counts[kind]), kind, str(int(counts.sum())) if last else "")
                left += int(counts[kind])
        title = "of the same types on both sides: the headers with most of them"
        below.set(yticks=range(len(by_header)), yticklabels=by_header.index, title=title, xlabel="records")
        for one in (above, below):
            one.invert_yaxis()
            one.grid(visible=False, axis="y")
            one.margins(x=0.08)
    words = ", ".join(f"{kinds[kind]} {kind}" for kind in order)
    most = ", ".join(f"{header} {int(counts.sum())}" for header, counts in by_header.iterrows())
    alt = f"{len(frame)} records differ: {words}. Of these, with the same types on both sides, by header: {most}."
    file = frame["header"].str.rpartition(":")[0]
    data = frame.groupby([file.rename("header"), "kind"]).size().reset_index(name="records")
    return show(drawn, alt, provenance, caption, data)


def _bar(axes: Axes, row: int, left: int, count: int, kind: str, label: str) -> None:
    hatch = {"interior shift": "//", "nested record": ".."}.get(kind)
    axes.barh(row, count, left=left, height=0.66, color=KINDS.get(kind, GREY), hatch=hatch, edgecolor="white")
    if label:
        axes.annotate(
            label, (left + count, row), xytext=(4, 0), textcoords="offset points", va="center", color=INK, size=10
        )


def _need(frame: pd.DataFrame, whose: str, *columns: str) -> None:
    missing = [name for name in columns if name not in getattr(frame, "columns", ())]
    if missing or not len(frame):
        raise BadInput(f"{whose}: expected a DataFrame of at least one row with {', '.join(columns)}")


def searchable(frame: pd.DataFrame, caption: str, provenance: Provenance = MODEL) -> Output:
    """A long table in a box of its own; in the book kn-search.js adds a field that hides the rows without a word."""
    made = table(frame, caption, provenance, index=False)
    head, rest = made.html.split("<tbody>")
    body, end = rest.split("</tbody>")
    body = re.sub(r"(?<=[a-z0-9])_(?=[a-z0-9])", "_<wbr>", body)  # names are long: let them break behind an underscore
    made.html = f'<style>{SEARCH_CSS}</style><div class="kn-search">{head}<tbody>{body}</tbody>{end}</div>'
    return made


SEARCH_CSS = """
.kn-search .kn-scroll{max-height:28rem;overflow:auto}
.kn-search .kn-table{font-size:.78rem;min-width:35rem;width:100%}
.kn-search .kn-table th,.kn-search .kn-table td{padding:.15rem .6rem .15rem 0;line-height:1.35}
.kn-search thead th{position:sticky;top:0;background:var(--pst-color-background,var(--jp-layout-color0,#fff))}
.kn-search label{display:flex;flex-wrap:wrap;gap:.2rem .6rem;align-items:baseline;font-weight:600;margin:.3rem 0}
.kn-search input{flex:1 1 12rem;font:inherit;font-weight:400;padding:.2rem .5rem;color:inherit;background:transparent;
border:1px solid #6e7681;border-radius:4px;min-width:0}
.kn-search output{font-size:.85rem}
@media print{.kn-search .kn-scroll{max-height:none}.kn-search label{display:none}}
""".replace("\n", "")
