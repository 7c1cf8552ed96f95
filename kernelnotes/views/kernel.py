"""Pictures of a model beside the kernel that it models."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kernelnotes.errors import BadInput
from kernelnotes.provenance import MODEL, Provenance
from kernelnotes.refault import Measured
from kernelnotes.views.output import Output, show
from kernelnotes.views.style import GREY, INK, PALETTE, WIDTH, figure, style

_WHO: Mapping[str, tuple[str, str]] = {"unwatched": (PALETTE["vermillion"], "o"), "sampled": (PALETTE["blue"], "s")}


def errors(frame: pd.DataFrame, caption: str = "") -> Output:
    """The error of every run of `refault.predictions`, a dot each, one row per workload, one panel per count."""
    kinds = ("misses", "refaults", "activations")
    names = list(dict.fromkeys(frame["workload"]))
    with style():
        drawn = Figure(figsize=(WIDTH, 3.4), layout="constrained")
        grid: Any = drawn.subplots(1, len(kinds), sharey=True)
        for axes, kind in zip(grid, kinds, strict=True):
            for shift, (who, (colour, marker)) in zip((-0.16, 0.16), _WHO.items(), strict=True):
                rows = frame[frame["sampled"] == (who == "sampled")]
                y = [names.index(name) + shift for name in rows["workload"]]
                axes.plot(100 * rows[f"error_{kind}"], y, marker, color=colour, markersize=4, label=who, alpha=0.8)
            axes.axvline(0, color=GREY, linewidth=1)
            axes.set_title(kind)
            most = max(0.1, 110 * float(frame[f"error_{kind}"].abs().max()))
            axes.set(xlabel="error (%)", xlim=(-most, most))
        grid[0].set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
        grid[0].invert_yaxis()
        drawn.legend(*grid[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    worst = {kind: 100 * frame[f"error_{kind}"].abs().max() for kind in kinds}
    words = ", ".join(f"{kind} {value:.2f} percent" for kind, value in worst.items())
    alt = f"Errors of the prediction in {len(frame)} runs of {len(names)} workloads; the largest are: {words}."
    percent = {f"error in {kind}, %": 100 * frame[f"error_{kind}"] for kind in kinds}
    data = frame[["workload", "sampled"]].assign(**percent)
    return show(drawn, alt, frame.attrs.get("provenance", MODEL), caption, data)


def ablation(table: pd.DataFrame, what: str = "refaults", caption: str = "") -> Output:
    """The largest error without each detail, of `refault.ablation`, on a logarithmic scale, largest first."""
    if ("unwatched", what) not in table.columns:
        raise BadInput(f"ablation: there is no column {what!r}, expected misses or refaults")
    order = table[("unwatched", what)].sort_values(ascending=False).index
    ordered = 100 * table.loc[order]
    drawn, axes = figure(height=0.32 * len(order) + 1.1)
    with style():
        for shift, (who, (colour, marker)) in zip((-0.17, 0.17), _WHO.items(), strict=True):
            y, x = np.arange(len(order)) + shift, ordered[(who, what)]
            axes.hlines(y, ordered.to_numpy().min() / 2, x, color=colour, linewidth=1.2)
            axes.plot(x, y, marker, color=colour, markersize=5, label=who)
        axes.set(xscale="log", xlabel=f"largest error in {what} (%)", xlim=(ordered.to_numpy().min() / 2, None))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_yticks(range(len(order)), list(order))
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        drawn.legend(loc="outside upper left", ncols=2)
    words = "; ".join(
        f"{name} {row[('unwatched', what)]:.2g} and {row[('sampled', what)]:.2g}" for name, row in ordered.iterrows()
    )
    alt = f"Largest error in {what}, in percent, of unwatched and of sampled runs, without: {words}."
    data = pd.DataFrame({"without": order} | {f"{who}, %": ordered[(who, what)].to_numpy() for who in _WHO})
    return show(drawn, alt, table.attrs.get("provenance", MODEL), caption, data)


def moments(
    told: Mapping[str, pd.Series],
    counted: Mapping[str, Sequence[tuple[int, int]]],
    provenance: Provenance,
    caption: str = "",
) -> Output:
    """Refaults against the moment of the one flush in a run: a line told by a model, the points that a kernel counted.

    told : by workload, refaults, with the access before which the flush is as index; counted : pairs of these two.
    """
    with style():
        drawn = Figure(figsize=(WIDTH, 3.0), layout="constrained")
        grid: Any = drawn.subplots(1, len(told), sharey=True, squeeze=False)
        for axes, (name, line) in zip(grid[0], told.items(), strict=True):
            axes.plot(line.index, line, color=INK, linewidth=1.2, drawstyle="steps-mid", label="model")
            points = counted.get(name, ())
            axes.plot(
                *zip(*points, strict=True),
                "o",
                color=PALETTE["vermillion"],
                markersize=7,
                label="counted by the kernel",
            )
            axes.set_title(name)
            axes.set(xlabel="access at the flush", ylim=(0, None))
            axes.tick_params(axis="x", labelrotation=30)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        grid[0, 0].set_ylabel("refaults")
        drawn.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    words = [
        f"{name}: the model says {line.min():,} to {line.max():,}; counted were "
        + ", ".join(f"{refaults:,} with a flush before access {at:,}" for at, refaults in counted.get(name, ()))
        for name, line in told.items()
    ]
    rows = [
        (name, who, at, refaults)
        for name, line in told.items()
        for who, pairs in (("model", line.items()), ("kernel", counted.get(name, ())))
        for at, refaults in pairs
    ]
    data = pd.DataFrame(rows, columns=["workload", "who", "access at the flush", "refaults"])
    return show(drawn, f"Refaults by the moment of the flush. {'. '.join(words)}.", provenance, caption, data)


def beside(
    measured: Sequence[Measured], told: Sequence[pd.DataFrame], what: str = "faults", caption: str = ""
) -> Output:
    """What a kernel counted, a point per workload, and the band that the model tells for it.

    told : of each, Measured.predicted(); a band where the phase of the kernel's clock is unknown, else a line.
    """
    names = [m.trace.partition("(")[0] for m in measured]
    drawn, axes = figure(height=0.5 * len(names) + 1.3)
    with style():
        for y, (m, frame) in enumerate(zip(measured, told, strict=True)):
            low, high = frame[what].min(), frame[what].max()
            axes.plot(
                [low, high],
                [y, y],
                color=PALETTE["sky"],
                linewidth=9,
                solid_capstyle="butt",
                label="" if y else "model",
            )
            axes.plot([low, high], [y, y], "|", color=PALETTE["blue"], markersize=13)
            axes.plot(
                [getattr(m, what)], [y], "o", color=PALETTE["vermillion"], markersize=6, label="" if y else "measured"
            )
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel=what, xlim=(0, None), ylim=(len(names) - 0.4, -0.6))
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        drawn.legend(loc="outside upper left", ncols=2)
    rows = [
        (name, getattr(m, what), frame[what].min(), frame[what].max())
        for name, m, frame in zip(names, measured, told, strict=True)
    ]
    words = "; ".join(f"{name}: measured {count:,}, model {low:,} to {high:,}" for name, count, low, high in rows)
    data = pd.DataFrame(rows, columns=["workload", f"{what} measured", "least told", "most told"])
    return show(drawn, f"{what} of {len(names)} workloads. {words}.", measured[0].provenance, caption, data)


def reaches(frame: pd.DataFrame, memory: int, caption: str = "") -> Output:
    """Each refault: the other pages touched since the last access against memory + R, in pages, one panel per rule set.

    frame : columns rules, reuse (reuse distance), R
    """
    names = list(dict.fromkeys(frame["rules"]))
    with style():
        drawn = Figure(figsize=(WIDTH, 3.2), layout="constrained")
        grid: Any = drawn.subplots(1, len(names), sharey=True, sharex=True, squeeze=False)
        most = int(max(frame["reuse"].max(), (memory + frame["R"]).max()))
        drawn_rows = []
        for axes, name in zip(grid[0], names, strict=True):
            rows = frame[frame["rules"] == name]
            some = rows.iloc[:: max(1, len(rows) // 400)]  # more markers only hide each other
            drawn_rows.append(some)
            axes.plot(
                some["reuse"], memory + some["R"], ".", color=PALETTE["blue"], markersize=3, alpha=0.6, label="refault"
            )
            axes.plot([0, most], [0, most], color=INK, linewidth=1, label="R told exactly what was missing")
            axes.axvline(memory, color=GREY, linewidth=1, linestyle=":")
            axes.set_title(name)
            axes.set(xlabel="reuse distance (pages)", xlim=(0, 1.05 * frame["reuse"].max()), ylim=(0, 1.05 * most))
            axes.tick_params(axis="x", labelrotation=30)
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        grid[0, 0].set_ylabel("memory + R (pages)")
        drawn.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    words = []
    for name in names:
        rows = frame[frame["rules"] == name]
        above = float((memory + rows["R"] >= rows["reuse"]).mean())
        words.append(f"{name}: in {100 * above:.0f} percent of {len(rows):,} refaults memory + R is at least as large")
    alt = f"Reuse distance against memory plus refault distance. {'; '.join(words)}."
    data = pd.concat(drawn_rows)[["rules", "reuse", "R"]].assign(memory=memory)
    return show(drawn, alt, MODEL, caption, data)


def curve(frames: Mapping[str, pd.DataFrame], caption: str = "", provenance: Provenance = MODEL) -> Output:
    """Miss ratios of LRU over memory, of `curves.miss_ratio`; an estimate with twice its standard error around it."""
    drawn, axes = figure(height=3.0)
    looks = ((INK, "-"), (PALETTE["vermillion"], "--"), (PALETTE["blue"], ":"), (PALETTE["green"], "-."))
    with style():
        for (name, frame), (colour, line) in zip(frames.items(), itertools.cycle(looks), strict=False):
            axes.plot(frame.index, frame["miss_ratio"], color=colour, linestyle=line, label=name)
            if "error" in frame:
                low, high = frame["miss_ratio"] - 2 * frame["error"], frame["miss_ratio"] + 2 * frame["error"]
                axes.fill_between(frame.index, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.set(xlabel="memory (pages)", ylabel="miss ratio", ylim=(0, 1), xlim=(0, None))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        drawn.legend(loc="outside upper left", ncols=3)
    words = [
        f"{name}: from {frame['miss_ratio'].iloc[0]:.2f} at {frame.index[0]:,} pages "
        f"to {frame['miss_ratio'].iloc[-1]:.2f} at {frame.index[-1]:,}"
        for name, frame in frames.items()
    ]
    data = pd.concat(frames, names=["curve", "memory"]).reset_index()
    return show(drawn, f"Miss ratio of LRU over memory. {'; '.join(words)}.", provenance, caption, data)
