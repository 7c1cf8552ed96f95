"""Pictures of the two lists: one access at a time, whole replays over time, and sweeps over sizes.

Every function takes model objects (`Memory`, `Replay`, the DataFrame of `sweep`) and gives an Output that a cell shows,
with a text alternative made from the same numbers.
"""

from __future__ import annotations

import functools
import itertools
import textwrap
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import FuncFormatter

from kernelnotes.errors import BadInput
from kernelnotes.provenance import MODEL, Provenance
from kernelnotes.refault import Event, Memory, Replay, Rules, rule_set
from kernelnotes.views.explorer import Explorer, Frame, explorer, play
from kernelnotes.views.output import Output, cell_text, show
from kernelnotes.views.style import GREY, INK, PALETTE, STRONG, WIDTH, figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# colour, line and marker of each rule set, the same in every figure; readable without the colour
LOOKS: Mapping[str, tuple[str, Any, str]] = {
    "balanced-2012": (PALETTE["blue"], "-", "o"),
    "proposal-2012": (PALETTE["vermillion"], "-", "s"),
    "lru": (PALETTE["green"], "--", "^"),
    "fifo": (PALETTE["purple"], ":", "v"),
    "opt": (INK, "-.", "D"),
    "proposal-2012-patch": (PALETTE["orange"], "--", "X"),
    "linux-3.15": (PALETTE["sky"], "-", "P"),
    "linux-6.18": (INK, "-", "*"),
    "mglru-simplified": (PALETTE["blue"], ":", ">"),
    "clock": (GREY, ":", "x"),
    "2q": (GREY, "-.", "h"),
    "arc": (PALETTE["purple"], "--", "d"),
    "s3fifo": (PALETTE["sky"], ":", "p"),
    "sieve": (STRONG, ":", "+"),
}
ACTIVE_FILL, INACTIVE_FILL, SHADOW_FILL = "#cfe4f3", "#fdebc8", "#ffffff"


class Moment(NamedTuple):
    """What a memory looks like after an access, kept for drawing."""

    event: Event | None
    active: list[Hashable]
    inactive: list[Hashable]
    unmapped: set[Hashable]
    shadow: dict[Hashable, int]
    workingset_time: int

    @classmethod
    def of(cls, memory: Memory, event: Event | None = None) -> Moment:
        """The memory as it is now."""
        return cls(event, memory.active, memory.inactive, memory.unmapped, memory.shadow, memory.workingset_time)

    def words(self, shadows: bool = True) -> str:
        """The same for readers who do not see the picture, with or without the shadow entries and the clock."""
        lists = [f"Active, newest first: {_names(self.active)}.", f"Inactive: {_names(self.inactive)}."]
        memory = [
            f"Shadow entries: {', '.join(f'{page} at {time}' for page, time in self.shadow.items()) or 'none'}.",
            f"workingset_time {self.workingset_time}.",
        ]
        return " ".join(
            [f"{self.event}." if self.event else "Nothing accessed yet.", *lists, *(memory if shadows else [])]
        )


def _names(pages: Sequence[Hashable]) -> str:
    return " ".join(map(str, pages)) or "empty"


def stepper(
    pages: Sequence[Hashable],
    memory: int,
    rules: str | Rules | Sequence[str | Rules] = "proposal-2012",
    anon: Collection[Hashable] = (),
    title: str = "",
    shadows: bool = True,
) -> Explorer:
    """Step through a short trace: both lists, the shadow entries, the clock, and each event in words.

    pages : the trace, at most 40 accesses to pages with names of at most 3 letters
    memory : at most 12 pages
    rules : one rule set, or several to switch between
    shadows : False leaves out the shadow entries and the clock, which the kernel of 2012 did not have
    Raises BadInput for what does not fit a picture, and as Memory does.
    """
    pages = list(pages)
    if not 1 <= len(pages) <= 40:
        raise BadInput(f"stepper: {len(pages)} accesses, expected 1 to 40; a longer trace is for `lengths`")
    if memory > 12 or max(len(str(page)) for page in pages) > 3:
        raise BadInput(f"stepper: memory {memory}, pages {pages[:3]}...: expected at most 12 pages, names of 3 letters")
    if not isinstance(rules, (str, Rules)) and not rules:
        raise BadInput("stepper: no rules given, expected at least one")
    several = [rule_set(rules)] if isinstance(rules, (str, Rules)) else [rule_set(one) for one in rules]
    films = {one.name: _film(pages, memory, one, anon) for one in several}
    rows = max(len(moment.shadow) for film in films.values() for moment in film) if shadows else 0

    def draw(access: int, rules: str = several[0].name) -> Frame:
        moment = films[rules][access]
        drawn = draw_moment(moment, memory, pages, access, most_shadows=rows, shadows=shadows)
        return Frame(drawn, moment.words(shadows))

    title = title or f"{len(pages)} accesses, memory of {memory} pages"
    axes: dict[str, Any] = {"access": play(range(len(pages) + 1), seconds=1.2)}
    if len(several) > 1:
        axes["rules"] = list(films)
    middle, end = {"access": len(pages) // 2}, {"access": len(pages)}
    return explorer(draw, title=title, still=[middle, end], **axes)


def _film(pages: Sequence[Hashable], memory: int, rules: Rules, anon: Collection[Hashable]) -> list[Moment]:
    m = Memory(memory, rules, anon=anon, trace=pages)
    film = [Moment.of(m)]
    for page in pages:
        event = m.access(page)
        film.append(Moment.of(m, event))
    return film


def draw_moment(
    moment: Moment,
    memory: int,
    pages: Sequence[Hashable] = (),
    done: int = 0,
    most_shadows: int = 0,
    lists: Sequence[str] = ("active", "inactive"),
    shadows: bool = True,
) -> Figure:
    """One moment: the trace with the current access, the lists from newest to oldest, the shadow entries."""
    slots = max(memory, most_shadows, 6)
    levels = [2.0 - 1.3 * k for k in range(len(lists) + shadows)]
    lowest = levels[-1] - 0.15
    drawn, axes = figure(height=0.52 * (5.2 - lowest))
    axes.set(xlim=(-2.6, max(slots, 9) + 0.2), ylim=(lowest, 5.2))
    axes.axis("off")
    _write_trace(axes, pages, done, max(slots, 9))
    words = str(moment.event) if moment.event else "nothing accessed yet"
    axes.text(-2.6, 3.95, "\n".join(textwrap.wrap(words, 78)), va="top", weight="bold", color=INK)
    hint = "newest \N{RIGHTWARDS ARROW} oldest" + ("; dashed: unmapped" if "active" in lists else "")
    axes.text(0.07, 3.12, hint, va="center", color=GREY, size=9.5)
    touched = {moment.event.page} if moment.event else set()
    moved = set(moment.event.activated + moment.event.demoted) if moment.event else set()
    contents = {"active": (moment.active, ACTIVE_FILL), "inactive": (moment.inactive, INACTIVE_FILL)}
    for name, y in zip(lists, levels, strict=False):
        members, fill = contents[name]
        _label(axes, y, name, f"{len(members)} page{'s' if len(members) != 1 else ''}")
        for k, page in enumerate(members):
            edge = PALETTE["vermillion"] if page in touched | moved else GREY
            _box(axes, k, y, str(page), fill, edge, dashed=page in moment.unmapped, thick=page in touched | moved)
    if not shadows:
        return drawn
    _label(axes, levels[-1], "shadow", f"time {moment.workingset_time}")
    for k, (page, time) in enumerate(moment.shadow.items()):
        fresh = moment.event is not None and page in moment.event.evicted
        edge = PALETTE["vermillion"] if fresh else GREY
        _box(axes, k, levels[-1], f"{page}\n@{time}", SHADOW_FILL, edge, dashed=False, thick=fresh, small=True)
    return drawn


def _write_trace(axes: Axes, pages: Sequence[Hashable], done: int, width: float) -> None:
    if not pages:
        return
    step = min(0.62, (width + 0.2) / len(pages))
    axes.text(-2.6, 4.75, "accesses", va="center", color=GREY)
    for k, page in enumerate(pages):
        now = k == done - 1
        colour = STRONG if now else INK if k < done else GREY
        axes.text(
            k * step + 0.2, 4.75, str(page), ha="center", va="center", color=colour, weight="bold" if now else "normal"
        )
        if now:
            axes.plot([k * step, k * step + 0.4], [4.42, 4.42], color=colour, linewidth=2)


def _label(axes: Axes, y: float, name: str, below: str) -> None:
    axes.text(-2.6, y + 0.52, name, va="center", color=INK)
    axes.text(-2.6, y + 0.12, below, va="center", color=GREY, size=9.5)


def _box(
    axes: Axes, x: float, y: float, text: str, fill: str, edge: str, dashed: bool, thick: bool, small: bool = False
) -> None:
    line = (0, (2.5, 1.8)) if dashed else "-"
    patch = FancyBboxPatch((x + 0.07, y), 0.86, 0.86, boxstyle="round,pad=0,rounding_size=0.12", facecolor=fill)
    patch.set(edgecolor=edge, linewidth=2.2 if thick else 1.1, linestyle=line)
    axes.add_patch(patch)
    axes.text(x + 0.5, y + 0.42, text, ha="center", va="center", color=INK, size=9.5 if small else 11, linespacing=1.05)


# --- Whole replays. ---------------------------------------------------------------------------------------------------


MOST_ROWS = 2000  # behind a link; longer series are thinned to that


def _thousands(axis: Any) -> None:
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def lengths(
    replays: Sequence[Replay],
    marks: Mapping[str, int] | None = None,
    titles: Sequence[str] = (),
    caption: str = "",
) -> Output:
    """Both lists over time in several replays side by side, and the faults they cost.

    marks : {label: access} of moments worth a vertical line; titles : by default the names of the rule sets.
    """
    if not replays or any(replay.series.empty for replay in replays):
        raise BadInput("lengths: expected at least one Replay made with keep='accesses'")
    titles = titles or [replay.rules.name for replay in replays]
    if len(titles) != len(replays):
        raise BadInput(f"lengths: {len(titles)} titles for {len(replays)} replays")
    with style():
        drawn = Figure(figsize=(WIDTH, 4.2), layout="constrained")
        same = len({replay.accesses for replay in replays}) == 1
        grid: Any = drawn.subplots(2, len(replays), sharex="col", sharey="row" if same else False, squeeze=False)
        for (above, below), replay, title in zip(grid.T, replays, titles, strict=True):
            series = replay.series
            above.plot(series["access"], series["active"], color=PALETTE["blue"], label="active list")
            above.plot(
                series["access"], series["inactive"], color=PALETTE["vermillion"], linestyle="--", label="inactive list"
            )
            below.plot(series["access"], series["faults"], color=INK)
            above.set_title(title)
            below.set_xlabel("accesses")
            for axes in (above, below):
                _thousands(axes.yaxis)
                _thousands(axes.xaxis)
                axes.tick_params(axis="x", labelrotation=30)
                for access in (marks or {}).values():
                    axes.axvline(access, color=GREY, linewidth=1, linestyle=":")
            alike = replays if same else [replay]  # panels that share an axis
            top = 1.06 * max(int(r.series[["active", "inactive"]].max().max()) for r in alike)
            above.set_ylim(0, top)
            below.set_ylim(0, 1.06 * max(r.faults for r in alike))
            for label, access in (marks or {}).items():
                above.annotate(
                    label, (access, top), xytext=(3, -2), textcoords="offset points", va="top", color=GREY, size=9.5
                )
        grid[0, 0].set_ylabel("length (pages)")
        grid[1, 0].set_ylabel("faults so far")
        drawn.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    words = [
        f"{title}: {r.faults:,} faults; at the end {r.series['active'].iloc[-1]:,} pages active, "
        f"{r.series['inactive'].iloc[-1]:,} inactive"
        for title, r in zip(titles, replays, strict=True)
    ]
    over = " and ".join(dict.fromkeys(f"{r.accesses:,} accesses of {r.trace}" for r in replays))
    alt = f"Lengths of both lists and faults over {over}. {'. '.join(words)}."
    sources = dict.fromkeys(replay.provenance for replay in replays)
    columns = ["access", "active", "inactive", "faults"]
    most = MOST_ROWS // len(replays)
    some = [r.series.iloc[np.unique(np.linspace(0, len(r.series) - 1, most, dtype=int))] for r in replays]
    data = pd.concat([series[columns] for series in some], keys=titles, names=["panel"]).reset_index("panel")
    return show(drawn, alt, functools.reduce(Provenance.joined, sources), caption, data)


def distances(replay: Replay, caption: str = "") -> Output:
    """The refault distances over time, against the length of the active list that each is compared to.

    Which of them take a page is exact if the replay kept a sample per access (`points=len(trace)`).
    """
    where = np.flatnonzero(replay.distances >= 0)
    if len(where) == 0:
        raise BadInput(f"distances: {replay!r} has no refault to show")
    series, values = replay.series, replay.distances
    before = np.searchsorted(series["access"], where, side="right") - 1  # the last sample before each refault
    active = series["active"].to_numpy()[np.maximum(before, 0)]
    takes = values[where] < active
    refaults = pd.DataFrame({"access": where, "R": values[where], "active": active})
    shown = []
    drawn, axes = figure(height=3.2)
    with style():
        for taken, label, colour, marker in (
            (True, "R of a refault that takes a page", PALETTE["vermillion"], "v"),
            (False, "R of one that takes none", GREY, "."),
        ):
            some = refaults[takes == taken]
            some = some.iloc[:: max(1, len(some) // 250)]  # more markers only hide each other
            shown.append(some)
            axes.plot(some["access"], some["R"], marker, color=colour, markersize=4.5, linestyle="none", label=label)
        axes.step(
            series["access"], series["active"], color=PALETTE["blue"], linewidth=1.4, label="length of the active list"
        )
        axes.set(xlabel="accesses", ylabel="pages", ylim=(0, None))
        _thousands(axes.xaxis)
        _thousands(axes.yaxis)
        drawn.legend(loc="outside upper left", ncols=2)
    alt = (
        f"{len(where):,} refaults of {replay.trace} under {replay.rules.name}, R from {values[where].min():,} to "
        f"{values[where].max():,} pages; {int(takes.sum()):,} are less than the length of the active list, which ends "
        f"with {series['active'].iloc[-1]:,} pages."
    )
    return show(drawn, alt, replay.provenance, caption, pd.concat(shown).sort_values("access"))


def fate(replay: Replay) -> Frame:
    """What became of every access: one bar for hits, soft faults, first faults and refaults each."""
    counts = {
        "hits": replay.hits - replay.soft_faults,
        "soft faults": replay.soft_faults,
        "first faults": replay.faults - replay.refaults,
        "refaults": replay.refaults,
    }
    colours = (PALETTE["green"], PALETTE["blue"], "#8c959f", PALETTE["vermillion"])
    drawn, axes = figure(height=2.2)
    with style():
        axes.barh(list(counts), list(counts.values()), color=colours, height=0.62)
        for k, count in enumerate(counts.values()):
            axes.annotate(f"{count:,}", (count, k), xytext=(4, 0), textcoords="offset points", va="center", color=INK)
        axes.set(xlabel="accesses", xlim=(0, replay.accesses))
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        _thousands(axes.xaxis)
    words = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    return Frame(drawn, f"{replay.trace} under {replay.rules.name}, memory {replay.memory:,} pages: {words}.")


# --- Sweeps. ----------------------------------------------------------------------------------------------------------


def sweep(
    frame: pd.DataFrame, column: str = "refaults", caption: str = "", mark: Mapping[str, int] | None = None
) -> Output:
    """One line per rule set over memory size, of a column of `refault.sweep`; `mark`: {label: memory} to show."""
    if column not in frame.columns:
        raise BadInput(f"sweep: no column {column!r}, expected one of {', '.join(map(str, frame.columns))}")
    drawn, axes = figure(height=3.2)
    others = itertools.cycle(zip((GREY, STRONG, PALETTE["sky"]), ("-", "--", ":"), "xP*", strict=True))
    with style():
        for rules, rows in frame.groupby("rules", sort=False):
            colour, line, marker = LOOKS.get(str(rules), next(others))
            axes.plot(
                rows["memory"],
                rows[column],
                color=colour,
                linestyle=line,
                marker=marker,
                markersize=4.5,
                label=str(rules),
            )
        axes.set(xlabel="memory (pages)", ylabel=column.replace("_", " "), ylim=(0, None))
        for label, size in (mark or {}).items():
            axes.axvline(size, color=GREY, linewidth=1, linestyle=":")
            axes.annotate(
                label, (size, axes.get_ylim()[1]), xytext=(4, -2), textcoords="offset points", va="top", color=GREY
            )
        _thousands(axes.xaxis)
        if frame[column].max() > 10:
            _thousands(axes.yaxis)
        drawn.legend(loc="outside upper left", ncols=min(5, frame["rules"].nunique()))
    ends = frame.groupby("rules", sort=False)[column].agg(["first", "last"])
    words = "; ".join(f"{rules} from {cell_text(a)} to {cell_text(b)}" for rules, a, b in ends.itertuples())
    sizes = f"{frame['memory'].min():,} to {frame['memory'].max():,} pages of memory"
    alt = f"{column.replace('_', ' ')} of {frame.attrs.get('trace', 'a trace')} over {sizes}: {words}."
    data = frame[["rules", "memory", column]]
    return show(drawn, alt, frame.attrs.get("provenance", MODEL), caption, data)


def tradeoff(frame: pd.DataFrame, provenance: Provenance = MODEL, caption: str = "") -> Output:
    """Refaults and soft faults against the share of memory that the inactive list gets, one panel per trace.

    frame : columns trace, inactive_share (percent), refaults, soft_faults.
    """
    names = list(dict.fromkeys(frame["trace"]))
    columns: dict[str, Any] = {
        "refaults": {"color": PALETTE["vermillion"], "marker": "s"},
        "soft_faults": {"color": PALETTE["blue"], "marker": "o", "linestyle": "--"},
    }
    with style():
        drawn = Figure(figsize=(WIDTH, 3.0), layout="constrained")
        grid: Any = drawn.subplots(1, len(names), squeeze=False)
        for axes, name in zip(grid[0], names, strict=True):
            rows = frame[frame["trace"] == name]
            for column, look in columns.items():
                axes.plot(rows["inactive_share"], rows[column], label=column.replace("_", " "), markersize=4, **look)
            axes.set(title=name, xlabel="inactive share (%)", ylim=(0, None))
            axes.axvline(50, color=GREY, linewidth=1, linestyle=":")
            _thousands(axes.yaxis)
        grid[0, 0].set_ylabel("faults")
        drawn.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    words = []
    for name in names:
        rows = frame[frame["trace"] == name]
        best = rows.loc[rows["refaults"].idxmin()]
        words.append(f"{name}: fewest refaults, {best['refaults']:,}, at {best['inactive_share']} percent")
    alt = f"Refaults and soft faults over the share of the inactive list. {'; '.join(words)}."
    return show(drawn, alt, provenance, caption, frame[["trace", "inactive_share", *columns]])
