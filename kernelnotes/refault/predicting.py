"""What the rules of a kernel say of runs on that kernel, and what each detail of them is worth."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
from tqdm import tqdm

from kernelnotes.errors import BadInput
from kernelnotes.provenance import Provenance
from kernelnotes.refault.choices import DETAILS
from kernelnotes.refault.replays import replay
from kernelnotes.refault.rules import Rules, rule_set

if TYPE_CHECKING:
    from kernelnotes.recordings.runs import KernelRun
    from kernelnotes.traces import Trace

ENOUGH = 500  # refaults, or activations: an error relative to fewer says little

_COUNTS = {"misses": "faults", "refault_file": "refaults", "activate_file": "refault_activations"}


def predictions(
    runs: Sequence[KernelRun],
    rules: str | Rules = "linux-6.18",
    *,
    flushes: bool = True,
    foreign: bool = True,
    progress: bool = False,
) -> pd.DataFrame:
    """A row per run: what the kernel counted, what `rules` say, and how far that is off.

    flushes, foreign : whether the rules are told when that kernel brought its statistics up to date, and what others
        evicted; untold statistics are always up to date
    Columns: run, workload, memory (pages), sampled, accesses; then for misses, refaults and activations, which are
    refaults that were activated, the kernel's count, `told_...` and `error_...`, relative, NaN where the kernel counted
    fewer than ENOUGH.
    """
    chosen, rows = rule_set(rules), []
    for run in tqdm(runs, desc="runs", disable=not progress):
        trace = _trace(run)
        known = set(trace.labels.tolist())
        evicted = [(at, page) for at, page in run.foreign if page in known] if foreign else []
        told = replay(
            trace, run.memory, chosen, keep="counts", flushes=run.flushes if flushes else None, foreign=evicted
        )
        row: dict[str, Any] = {
            "run": run.id,
            "workload": run.workload,
            "memory": run.memory,
            "sampled": run.sample_period > 0,
            "accesses": len(trace),
        }
        for name, (counter, field) in zip(("misses", "refaults", "activations"), _COUNTS.items(), strict=True):
            counted, said = run.counters[counter], getattr(told, field)
            row |= {name: counted, f"told_{name}": said}
            row[f"error_{name}"] = said / counted - 1 if counted >= ENOUGH else float("nan")
        rows.append(row)
    if not rows:
        raise BadInput("predictions: there are no runs, expected at least one")
    frame = pd.DataFrame(rows)
    frame.attrs["provenance"] = Provenance("model", over=runs[0].provenance)
    return frame


@functools.lru_cache(maxsize=128)
def _trace(run: KernelRun) -> Trace:
    return run.trace()


def ablation(
    runs: Sequence[KernelRun],
    details: Iterable[str] | None = None,
    rules: str | Rules = "linux-6.18",
    progress: bool = True,
) -> pd.DataFrame:
    """What each detail of the rules is worth: the largest error over all runs without it.

    details : of DETAILS; by default all that these rules have
    Rows: "nothing" left out, each detail, "evictions by others", "all of these".  Columns: misses, refaults, relative
    errors, for runs that nobody watched and for sampled ones.
    """
    chosen = rule_set(rules)
    listed = [d for d in DETAILS if _has(chosen, d)] if details is None else list(details)
    cases: dict[str, tuple[Rules, bool]] = {"nothing": (chosen, True)}
    cases |= {detail: (chosen.without(detail), True) for detail in listed}
    cases["evictions by others"] = (chosen, False)
    textbook = chosen
    for detail in listed:
        textbook = textbook.without(detail) if _has(textbook, detail) else textbook
    cases["all of these"] = (textbook, False)
    sides = [(who, what) for who in ("unwatched", "sampled") for what in ("misses", "refaults")]
    rows = []
    for without, foreign in tqdm(cases.values(), desc="details", disable=None if progress else True):
        frame = predictions(runs, without, foreign=foreign)
        errors = {who: frame[frame["sampled"] == (who == "sampled")] for who in ("unwatched", "sampled")}
        rows.append([errors[who][f"error_{what}"].abs().max() for who, what in sides])
    table = pd.DataFrame(rows, index=list(cases), columns=pd.MultiIndex.from_tuples(sides))
    table.attrs["provenance"] = Provenance("model", over=runs[0].provenance)
    return table.rename_axis("left out")


def _has(rules: Rules, detail: str) -> bool:
    return rules.choices._replace(**DETAILS[detail]) != rules.choices
