"""Whole traces at full speed: replay and sweep."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm import tqdm

from kernelnotes.errors import BadInput
from kernelnotes.provenance import MODEL, Provenance
from kernelnotes.refault.rules import (
    ACTIVE,
    ANON,
    BUILT_IN,
    COUNTERS,
    EMPTY,
    FAULTS,
    HIT,
    INACTIVE,
    LENGTH,
    WORKINGSET_TIME,
    Rules,
    State,
    Step,
    check_lengths,
    check_memory,
    is_integer,
    opt,
    rule_set,
    run,
    slots_for,
)
from kernelnotes.traces import Trace, TraceLike, as_trace

if TYPE_CHECKING:
    from concurrent.futures import Executor


def have_numba() -> bool:
    """Whether replays are compiled; without numba the same functions run as plain Python, with the same results."""
    return importlib.util.find_spec("numba") is not None


@functools.cache
def _runner(step: Step) -> Callable[..., None]:
    """`run` with `step` filled in: compiled if possible, and from disk if it was compiled before."""
    if not have_numba():
        return functools.partial(run, step)
    from kernelnotes.refault import compiled

    if step in BUILT_IN:
        return functools.partial(compiled.built_in(), BUILT_IN.index(step))
    return compiled.custom(step)


@dataclass(frozen=True, eq=False, kw_only=True)
class Replay:
    """What became of a trace in a memory of `memory` pages under `rules`; a model's result, whatever the trace.

    trace : its name
    memory : pages
    faults : accesses that found the page out of memory
    refaults : those of them whose page had been in memory before
    activations, deactivations : pages moved to the active list by a reference, and moved back
    refault_activations : pages that went to the active list straight from a refault
    evictions : pages that left memory
    soft_faults : activations of a page that a deactivation had unmapped
    distances : int64 array, shape (accesses,); HIT, COLD, or the refault distance R in pages.  Exact up to 2**28, where
        the shadow entries wrap.  Empty for keep="counts", and so is `series`.
    series : DataFrame, one row per sampled access: `access` (how many are done), lengths of both lists in pages
        (`inactive`, `active`), `workingset_time`, and each counter so far
    """

    trace: str
    rules: Rules
    memory: int
    accesses: int
    faults: int
    refaults: int
    activations: int
    refault_activations: int
    deactivations: int
    evictions: int
    soft_faults: int
    distances: npt.NDArray[np.int64]
    series: pd.DataFrame
    provenance: Provenance = field(default=MODEL)

    @property
    def hits(self) -> int:
        """Accesses that found the page in memory, soft faults included."""
        return self.accesses - self.faults

    @property
    def hit(self) -> npt.NDArray[np.bool_]:
        """Per access, whether it was a hit; shape (accesses,)."""
        return np.equal(self.distances, HIT)

    @property
    def miss_ratio(self) -> float:
        """Faults per access."""
        return self.faults / self.accesses

    def summary(self) -> dict[str, Any]:
        """The counts as one row of a table."""
        counts = {name: getattr(self, name) for name in COUNTERS}
        return {"rules": self.rules.name, "memory": self.memory, "accesses": self.accesses, "hits": self.hits} | counts

    def __repr__(self) -> str:
        """One line with the counts that matter most."""
        return (
            f"<Replay of {self.trace} under {self.rules.name}, memory {self.memory:,} pages: "
            f"{self.accesses:,} accesses, {self.faults:,} faults, {self.refaults:,} refaults ({self.provenance})>"
        )


def replay(
    trace: TraceLike,
    memory: int,
    rules: str | Rules = "proposal-2012",
    keep: str = "accesses",
    points: int = 1000,
) -> Replay:
    """Send every access of `trace` through a memory of `memory` pages under `rules`.

    trace : a Trace, or a sequence of page numbers >= 0 or of strings, at least one
    memory : pages, from 1 to the number of accesses
    rules : a name in RULES or a Rules
    keep : "accesses" keeps a distance per access and a series of `points` samples, "counts" only the counts
    Raises BadInput for anything else.

    The first replay of a process compiles, or loads what was compiled before; then an access takes 10 ns or so.
    """
    trace = as_trace(trace)
    chosen = rule_set(rules)
    n = len(trace)
    memory = check_memory(memory, n)
    if keep not in ("accesses", "counts"):
        raise BadInput(f"keep is {keep!r}, expected 'accesses' or 'counts'")
    if not is_integer(points) or points < 1:
        raise BadInput(f"points is {points!r}, expected an integer >= 1")
    m = _state(trace, memory, chosen)
    pages: Any = trace.pages
    distances: Any = np.empty(n if keep == "accesses" else 0, dtype=np.int64)
    if not have_numba():  # lists are ten times as fast as arrays where each element is read by itself
        m = State(*(part.tolist() if isinstance(part, np.ndarray) else part for part in m))
        pages, distances = pages.tolist(), distances.tolist()
    samples = np.linspace(0, n, min(points, n) + 1).astype(int)[1:].tolist() if keep == "accesses" else [n]
    run_part, rows, done = _runner(chosen.step), [], 0
    for sample in samples:
        run_part(m, chosen.choices, pages, done, sample, distances)
        check_lengths(m, chosen)
        rows.append([sample, *(int(m.n[i]) for i in _SERIES.values())])
        done = sample
    counts = {name: int(m.n[FAULTS + i]) for i, name in enumerate(COUNTERS)}
    series = pd.DataFrame(rows if keep == "accesses" else [], columns=["access", *_SERIES])
    return Replay(
        trace=trace.name,
        rules=chosen,
        memory=memory,
        accesses=n,
        distances=np.asarray(distances, dtype=np.int64),
        series=series,
        provenance=_model_of(trace),
        **counts,
    )


_SERIES = {"inactive": LENGTH + INACTIVE, "active": LENGTH + ACTIVE, "workingset_time": WORKINGSET_TIME} | {
    name: FAULTS + i for i, name in enumerate(COUNTERS)
}


def _state(trace: Trace, memory: int, rules: Rules) -> State:
    future = rules.step is opt
    slots = slots_for(memory + min(rules.choices.active_pages, trace.unique))
    return State(
        word=np.where(trace.anon, ANON, 0).astype(np.int32),
        ring=np.full(2 * slots, EMPTY, dtype=np.int32),
        n=np.zeros(FAULTS + len(COUNTERS), dtype=np.int64),
        next_use=next_uses(trace.pages) if future else np.zeros(0, dtype=np.int64),
        due=np.zeros(trace.unique if future else 0, dtype=np.int64),
        memory=memory,
        mask=slots - 1,
    )


def next_uses(pages: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
    """Per access, the index of the next access to the same page; len(pages) where there is none.  Shape (n,)."""
    order = np.argsort(pages, kind="stable")
    later = np.full(len(pages), len(pages), dtype=np.int64)
    same = pages[order[1:]] == pages[order[:-1]]
    later[order[:-1][same]] = order[1:][same]
    return later


def sweep(
    trace: TraceLike,
    memory: Sequence[int],
    rules: Sequence[str | Rules],
    executor: Executor | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Replay `trace` at every size in `memory` (pages) under every one of `rules`, counts only.

    executor : any concurrent.futures Executor, e.g. a process pool; by default one after the other
    progress : show a bar on a terminal
    Returns a DataFrame with a row per replay, sizes within rules: the columns of Replay.summary() and `miss_ratio`;
    its `attrs` hold the name of the `trace` and the `provenance`.
    Raises BadInput as `replay` does, before the first replay.
    """
    trace = as_trace(trace)
    sizes = [check_memory(size, len(trace)) for size in _listed("memory", memory)]
    tasks = [(rule_set(name), size) for name in _listed("rules", rules) for size in sizes]
    if executor is not None and not hasattr(executor, "map"):
        raise BadInput(f"executor is {executor!r}, expected a concurrent.futures Executor")
    one = functools.partial(_one_of_sweep, trace)
    results = executor.map(one, tasks) if executor else map(one, tasks)
    shown = tqdm(results, total=len(tasks), desc="sweep", unit="replay", disable=None if progress else True)
    frame = pd.DataFrame(shown)
    frame.attrs = {"trace": trace.name, "provenance": _model_of(trace)}
    return frame


def _model_of(trace: Trace) -> Provenance:
    return MODEL if trace.provenance == MODEL else Provenance("model", over=trace.provenance)


def _listed(what: str, given: Any) -> list[Any]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise BadInput(f"{what} is {given!r}, expected a sequence")
    listed = list(given)
    if not listed:
        raise BadInput(f"{what} is empty, expected at least one")
    return listed


def _one_of_sweep(trace: Trace, task: tuple[Rules, int]) -> dict[str, Any]:
    result = replay(trace, task[1], task[0], keep="counts")
    return result.summary() | {"miss_ratio": result.miss_ratio}
