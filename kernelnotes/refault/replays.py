"""Whole traces at full speed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kernelnotes.errors import BadInput
from kernelnotes.intrinsics import have_numba
from kernelnotes.provenance import MODEL, Provenance
from kernelnotes.refault.choices import Choices
from kernelnotes.refault.kernel import AGES, BATCH, FLUSH_NS, HIT_NS, LENGTHS, MISS_NS, NEVER, READ_AHEAD, TICK, linux
from kernelnotes.refault.lists import (
    ACTIVE,
    ANON,
    COUNTERS,
    EMPTY,
    FAULTS,
    HIT,
    INACTIVE,
    LENGTH,
    WORKINGSET_TIME,
    Kernel,
    State,
)
from kernelnotes.refault.loop import BUILT_IN, Step, run
from kernelnotes.refault.nodes import CHUNK_SHIFT, Nodes
from kernelnotes.refault.rules import Rules, check_lengths, check_memory, is_integer, rule_set, slots_for
from kernelnotes.refault.yardsticks import opt
from kernelnotes.traces import Chunks, Trace, TraceLike, as_chunks, as_trace

if TYPE_CHECKING:
    from kernelnotes.traces.chunks import Numbering


@functools.cache
def _runner(step: Step) -> Callable[..., None]:
    """`run` with `step` filled in: compiled if possible, and from disk if it was compiled before."""
    if not have_numba():
        return functools.partial(run, step)
    from kernelnotes.refault import compiled

    if step in BUILT_IN:
        return compiled.built_in(step)
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
    soft_faults : activations of a page that a deactivation had unmapped; under rules of Linux, first touches of a
        mapped page that is in memory
    read_ahead : pages that readahead brought in, of those that `replay` was told of
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
    activations: int | None
    refault_activations: int | None
    deactivations: int | None
    evictions: int
    soft_faults: int
    distances: npt.NDArray[np.int64]
    series: pd.DataFrame
    read_ahead: int = 0
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


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Measured(Replay):
    """What a running kernel did with a trace: a Replay whose counts are the kernel's own.

    `activations`, `refault_activations` and `deactivations` are None on a cgroup of version 1, which does not tell
    them; `distances` is empty, since a kernel keeps R to itself; `series` has a row per sample.

    sample_period : somebody read memory.stat each time so many accesses were done, which keeps what the kernel decides
        on up to date; 0: nobody did
    hit_us, miss_us : mean microseconds per read() that found its page in memory, and that did not
    """

    sample_period: int
    hit_us: float
    miss_us: float

    @property
    def flushes(self) -> range | Clock:
        """For `replay`, what is known of when this kernel brought its statistics up to date."""
        if self.sample_period:
            return range(self.sample_period, self.accesses + 1, self.sample_period)
        return Clock(hit_us=self.hit_us, miss_us=self.miss_us)

    def predicted(self, trace: TraceLike, rules: str | Rules = "linux-6.18", phases: int = 40) -> pd.DataFrame:
        """What the model says of this run: a row per phase of the kernel's clock, or one if that clock is known.

        The columns are those of Replay.summary(), and `phase`.
        """
        if not is_integer(phases) or phases < 1:
            raise BadInput(f"phases is {phases!r}, expected an integer >= 1")
        clock = self.flushes
        rows = []
        for phase in [0.0] if isinstance(clock, range) else (np.arange(phases) / phases).tolist():
            flushes = clock if isinstance(clock, range) else replace(clock, phase=phase)
            told = replay(trace, self.memory, rules, keep="counts", flushes=flushes)
            rows.append(told.summary() | {"phase": phase})
        return pd.DataFrame(rows)


def replay(
    trace: TraceLike,
    memory: int,
    rules: str | Rules = "proposal-2012",
    keep: str = "accesses",
    points: int = 1000,
    flushes: Iterable[int] | Clock | None = None,
    foreign: Iterable[tuple[int, Any]] = (),
    ahead: Iterable[tuple[int, Any]] = (),
) -> Replay:
    """Send every access of `trace` through a memory of `memory` pages under `rules`.

    trace : a Trace, or a sequence of page numbers >= 0 or of strings, at least one; or parts of one, from traces.open
        or a generator of arrays: then no distances are kept, the series has a row per part, and it takes memory in
        proportion to the distinct pages, not to the accesses
    memory : pages, from 1 to the number of accesses and of pages read ahead
    rules : a name in RULES or a Rules
    keep : "accesses" keeps a distance per access and a series of `points` samples, "counts" only the counts
    flushes : for rules that decide on stale statistics: the indices of the accesses before which the kernel brought
        them up to date, or a Clock that tells when it will; by default they are never stale
    foreign : for rules of Linux: pairs of an access and a page that somebody from outside evicted before it, such as
        DAMON; ignored where the page is not in memory
    ahead : the same of pages that readahead brought in before that access; ignored where the page is in memory
    Raises BadInput for anything else, and where the memory is too small for what cannot be reclaimed.

    The first replay of a process compiles, or loads what was compiled before; then an access takes 10 ns or so.

    >>> told = refault.replay("ABCABC", 2, "fifo")
    >>> told.faults, told.refaults, told.distances.tolist()
    (6, 3, [-2, -2, -2, 1, 1, 1])
    """
    chosen = rule_set(rules)
    if keep not in ("accesses", "counts"):
        raise BadInput(f"keep is {keep!r}, expected 'accesses' or 'counts'")
    if not is_integer(points) or points < 1:
        raise BadInput(f"points is {points!r}, expected an integer >= 1")
    if (parts := as_chunks(trace)) is not None:
        return _replay_parts(parts, check_memory(memory), chosen, keep, flushes, foreign, ahead)
    trace = as_trace(trace)
    n = len(trace)
    choices, kernel = _kernel(trace, chosen, flushes, foreign, ahead)
    memory = check_memory(memory, n + len(kernel.ahead) // 2)
    m = _state(trace, memory, chosen, kernel)
    if isinstance(flushes, Clock):
        flushes.wind(m)
    pages: Any = trace.pages
    distances: Any = np.empty(n if keep == "accesses" else 0, dtype=np.int64)
    if not have_numba():  # lists are ten times as fast as arrays where each element is read by itself
        m = _as_lists(m)
        pages, distances = pages.tolist(), distances.tolist()
    samples = np.linspace(0, n, min(points, n) + 1).astype(int)[1:].tolist() if keep == "accesses" else [n]
    rows, done = [], 0
    for sample in samples:
        _run(m, choices, chosen, trace.name, pages, done, sample, distances)
        rows.append([sample, *(int(m.n[i]) for i in _SERIES.values())])
        done = sample
    return _replayed(m, trace, chosen, n, distances, rows if keep == "accesses" else [])


def _run(
    m: State, choices: Choices, rules: Rules, name: str, pages: Any, start: int, stop: int, distances: Any
) -> None:
    if isinstance(pages, np.ndarray):
        pages = pages.view(np.uint32)  # of a signed index, compiled code asks whether it counts from the end
    try:
        _runner(rules.step)(m, choices, pages, start, stop, distances)
    except MemoryError as e:
        raise BadInput(f"memory is {m.memory} pages, too few for {name} under {rules.name}: {e}") from e
    check_lengths(m, rules)


def _replayed(
    m: State, trace: Trace | Chunks, rules: Rules, accesses: int, distances: Any, rows: list[list[int]]
) -> Replay:
    counts = {name: int(m.n[FAULTS + i]) for i, name in enumerate(COUNTERS)}
    return Replay(
        trace=trace.name,
        rules=rules,
        memory=m.memory,
        accesses=accesses,
        distances=np.asarray(distances, dtype=np.int64),
        series=pd.DataFrame(rows, columns=["access", *_SERIES]),
        provenance=model_of(trace),
        read_ahead=int(m.n[READ_AHEAD]) if rules.step is linux else 0,
        **counts,
    )


def _replay_parts(
    parts: Chunks,
    memory: int,
    rules: Rules,
    keep: str,
    flushes: Iterable[int] | Clock | None,
    foreign: Any,
    ahead: Any,
) -> Replay:
    # What grows with the distinct pages grows as they come.
    if rules.step is opt:
        raise BadInput("rules 'opt' looks into the future: expected a Trace, all of it in memory")
    first = Trace.of([0], parts.name)  # of one page, whose place the first page of the parts takes
    choices, kernel = _kernel(first, rules, flushes, foreign, ahead)
    m, accesses, rows = _state(first, memory, rules, kernel), 0, list[list[int]]()
    nodes = _NodesOf() if len(kernel.node_of) else None
    if isinstance(flushes, Clock):
        flushes.wind(m)
    if not have_numba():
        m = _as_lists(m)
    for pages, numbering in parts.numbered():
        m = _with_room(m, numbering, nodes)
        stop: Any = len(pages)
        given = pages if have_numba() else pages.tolist()
        _run(m, choices, rules, parts.name, given, 0, stop, _NO_DISTANCES[have_numba()])
        accesses += stop
        rows.append([accesses, *(int(m.n[i]) for i in _SERIES.values())])
    if not accesses:
        raise BadInput(f"{parts.name}: it is empty, expected at least one access")
    return _replayed(m, parts, rules, accesses, [], rows if keep == "accesses" else [])


_NO_DISTANCES: tuple[Any, Any] = ([], np.empty(0, dtype=np.int64))  # without numba, with it


def _with_room(m: State, numbering: Numbering, nodes: _NodesOf | None) -> State:
    """The state with a word for each page that is known by now, and what else there is per page and per node."""
    pages = len(numbering)
    if pages > len(m.word):
        pages = max(pages, len(m.word) * 5 // 4)  # seldom
        m = m._replace(word=_longer(m.word, pages, 0))
        if m.ghosts:
            m = m._replace(ghosts=m.ghosts._replace(word=_longer(m.ghosts.word, pages, 0)))
    if nodes:
        of = nodes.extended(numbering.labels)
        k, count = m.kernel, len(nodes.nodes.parents)
        grown = {name: _longer(getattr(k, name), count, 0) for name in ("held", "entries", "older", "newer")}
        parents = _longer(k.parents, count, 0)
        for i in range(len(k.parents), count):
            parents[i] = nodes.nodes.parents[i]
        node_of = of if have_numba() else of.tolist()
        freed = _longer(k.freed, count, NEVER)
        m = m._replace(kernel=k._replace(node_of=node_of, parents=parents, freed=freed, **grown))
    return m


def _longer(column: Any, length: int, fill: int) -> Any:
    if isinstance(column, list):
        return column + [fill] * (length - len(column))
    longer = np.full(length, fill, dtype=column.dtype) if fill else np.zeros(length, dtype=column.dtype)
    longer[: len(column)] = column
    return longer


_SERIES = {"inactive": LENGTH + INACTIVE, "active": LENGTH + ACTIVE, "workingset_time": WORKINGSET_TIME} | {
    name: FAULTS + i for i, name in enumerate(COUNTERS)
}


def _state(trace: Trace, memory: int, rules: Rules, kernel: Kernel) -> State:
    future = rules.step is opt
    slots = slots_for(memory + min(rules.choices.active_pages, trace.unique))
    state = State(
        word=np.where(trace.anon, ANON, 0).astype(np.int32),
        ring=np.full(2 * slots, EMPTY, dtype=np.int32),
        n=np.zeros(LENGTHS, dtype=np.int64),
        next_use=next_uses(trace.pages) if future else np.zeros(0, dtype=np.int64),
        due=np.zeros(trace.unique if future else 0, dtype=np.int64),
        kernel=kernel,
        memory=memory,
        mask=slots - 1,
    )
    state.n[TICK] = AGES
    if rules.choices.ghosts == 0:
        return state
    slots = slots_for(max(1, memory * rules.choices.ghosts // 100))
    ring = np.full(2 * slots, EMPTY, dtype=np.int32)
    ghosts = state._replace(word=np.zeros_like(state.word), ring=ring, n=np.zeros_like(state.n), mask=slots - 1)
    return state._replace(ghosts=ghosts, target=np.zeros(1))


def _as_lists(part: Any) -> Any:
    if isinstance(part, tuple) and hasattr(part, "_fields"):
        return type(part)(*map(_as_lists, part))
    return part.tolist() if isinstance(part, np.ndarray) else part


@dataclass(frozen=True, kw_only=True)
class Clock:
    """When a kernel brings its memory statistics up to date, told from what accesses cost on its machine.

    hit_us, miss_us : microseconds per access that finds its page in memory, and that does not
    period_s : seconds between two flushes (FLUSH_TIME, mm/memcontrol.c)
    phase : the time of the first flush, in periods, from 0 to 1

    Raises BadInput for anything else.
    """

    hit_us: float
    miss_us: float
    period_s: float = 2.0
    phase: float = 0.5

    def __post_init__(self) -> None:
        """Refuse what is no time."""
        for what, value, most in (
            ("hit_us", self.hit_us, 1e9),
            ("miss_us", self.miss_us, 1e9),
            ("period_s", self.period_s, 1e6),
            ("phase", self.phase, 1.0),
        ):
            least = 1e-3 if what == "period_s" else 0.0
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
                raise BadInput(f"clock: {what} is {value!r}, expected a number from {least:g} to {most:g}")

    def wind(self, m: State) -> None:
        """Set the clock of a memory."""
        m.n[HIT_NS], m.n[MISS_NS] = round(self.hit_us * 1e3), round(self.miss_us * 1e3)
        m.n[FLUSH_NS] = round(self.period_s * 1e9)
        m.n[TICK] = round(self.phase * self.period_s * 1e9)


def _kernel(
    trace: Trace,
    rules: Rules,
    flushes: Iterable[int] | Clock | None,
    foreign: Iterable[tuple[int, Any]],
    ahead: Iterable[tuple[int, Any]] = (),
) -> tuple[Choices, Kernel]:
    """The choices of `rules`, with statistics that are always fresh where no flushes are known; and that state."""
    given = _flushes(flushes)
    evicted, early = _pairs("foreign", trace, foreign), _pairs("ahead", trace, ahead)
    if rules.step is not linux and (len(given) or len(evicted) or len(early) or isinstance(flushes, Clock)):
        raise BadInput(f"rules {rules.name!r}: flushes, foreign evictions and readahead matter for rules of Linux only")
    choices = rules.choices._replace(stale_statistics=0) if flushes is None else rules.choices
    node_of, parents = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int32)
    if rules.step is linux and choices.charged_nodes:
        of, order = _NodesOf(), _first_in(trace, early)
        node_of = np.empty(trace.unique, dtype=np.int32)
        indices = trace.labels if trace.labels.dtype.kind in "iu" else np.arange(trace.unique)
        node_of[order] = of.extended(indices[order])
        parents = np.array(of.nodes.parents, dtype=np.int32)
    count = len(parents)
    return choices, Kernel(
        batch=np.zeros(2 * BATCH, dtype=np.int32),
        flushes=given,
        foreign=evicted,
        ahead=early,
        way=trace.mapped if rules.step is linux else _NO_WAYS,
        mapping=np.zeros(trace.unique if rules.step is linux and len(trace.mapped) else 0, dtype=np.uint8),
        away=np.zeros(trace.unique if len(evicted) else 0, dtype=np.uint8),
        node_of=node_of,
        parents=parents,
        **{name: np.zeros(count, dtype=np.int32) for name in ("held", "entries", "older", "newer")},
        freed=np.full(count, NEVER, dtype=np.int64),
    )


_NO_WAYS = np.zeros(0, dtype=np.uint8)


def _first_in(trace: Trace, ahead: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The pages in the order in which they first come into memory: by an access, or by readahead before it."""
    if len(ahead) == 0:
        return np.arange(trace.unique)  # numbers are given in order of appearance
    at, pages = ahead.reshape(2, -1)
    first = np.empty(trace.unique, dtype=np.int64)
    first[trace.pages[::-1]] = 2 * np.arange(len(trace))[::-1] + 1  # the last assignment stays
    np.minimum.at(first, pages, 2 * at)
    return np.argsort(first, kind="stable")


class _NodesOf:
    """Which xarray node holds each page: of a file if labels are numbers, else of one in order of appearance."""

    def __init__(self) -> None:
        self.nodes, self.node_of = Nodes(), np.zeros(0, dtype=np.int32)

    def extended(self, labels: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
        """By page; `labels` are those of all pages so far."""
        done = len(self.node_of)
        indices = labels[done:] if labels.dtype.kind in "iu" else np.arange(done, len(labels))
        which, leaves = pd.factorize(indices >> CHUNK_SHIFT)  # in order of appearance, as Nodes counts them
        numbers = np.array([self.nodes.number(leaf << CHUNK_SHIFT) for leaf in leaves.tolist()], dtype=np.int32)
        self.node_of = np.concatenate([self.node_of, numbers[which]])
        return self.node_of


def _flushes(given: Iterable[int] | Clock | None) -> npt.NDArray[np.int64]:
    if given is None or isinstance(given, Clock):
        return np.zeros(0, dtype=np.int64)
    found = _column("flushes", given)
    return np.sort(found)


def _column(what: str, given: Any) -> npt.NDArray[np.int64]:
    try:
        found = np.asarray(list(given))
    except TypeError as e:
        raise BadInput(f"{what} is {given!r}, expected indices of accesses") from e
    if len(found) == 0:
        return np.zeros(0, dtype=np.int64)
    if found.ndim != 1 or found.dtype.kind not in "iu" or found.min() < 0:
        raise BadInput(f"{what}: expected indices of accesses, integers from 0 up")
    return found.astype(np.int64)


def _pairs(what: str, trace: Trace, given: Any) -> npt.NDArray[np.int64]:
    try:
        pairs = [(index, page) for index, page in given]
    except (TypeError, ValueError) as e:
        raise BadInput(f"{what} is {given!r}, expected pairs of the index of an access and a page") from e
    at = _column(what, [index for index, _ in pairs])
    number = {label: i for i, label in enumerate(trace.labels.tolist())} if pairs else {}
    unknown = [page for _, page in pairs if page not in number]
    if unknown:
        raise BadInput(f"{what}: page {unknown[0]!r} does not occur in {trace.name}")
    pages = np.array([number[page] for _, page in pairs], dtype=np.int64)
    order = np.argsort(at, kind="stable")
    return np.concatenate([at[order], pages[order]])


def next_uses(pages: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
    """Per access, the index of the next access to the same page; len(pages) where there is none.  Shape (n,)."""
    order = np.argsort(pages, kind="stable")
    later = np.full(len(pages), len(pages), dtype=np.int64)
    same = pages[order[1:]] == pages[order[:-1]]
    later[order[:-1][same]] = order[1:][same]
    return later


def model_of(trace: Trace | Chunks) -> Provenance:
    """The origin of a model's result over `trace`."""
    return MODEL if trace.provenance == MODEL else Provenance("model", over=trace.provenance)


def listed(what: str, given: Any) -> list[Any]:
    """`given` as a list; raises BadInput for what is no sequence, and for an empty one."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise BadInput(f"{what} is {given!r}, expected a sequence")
    listed = list(given)
    if not listed:
        raise BadInput(f"{what} is empty, expected at least one")
    return listed
