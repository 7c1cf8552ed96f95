"""One access at a time, with everything to look at."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from kernelnotes.errors import BadInput
from kernelnotes.refault.generations import GENERATION, mglru
from kernelnotes.refault.kernel import ADDING, AGES, BATCH, LENGTHS, NEVER, TICK, linux
from kernelnotes.refault.lists import (
    ACTIVE,
    ANON,
    COLD,
    COUNTERS,
    EMPTY,
    ENTRY,
    FAULTS,
    HIT,
    INACTIVE,
    LENGTH,
    NEWEST,
    NOW,
    OLDEST,
    ON_ACTIVE,
    RESIDENT,
    SHADOW,
    SOFT_FAULTS,
    UNMAPPED,
    WORKINGSET_TIME,
    Kernel,
    State,
)
from kernelnotes.refault.nodes import Nodes, index_of
from kernelnotes.refault.rules import Rules, check_lengths, check_memory, is_integer, rule_set, slots_for
from kernelnotes.refault.yardsticks import opt


@dataclass(frozen=True, kw_only=True)
class Event:
    """What one access did.

    distance : HIT, COLD, or the refault distance R
    activated, demoted, evicted : pages moved to the active list by the reference; off the active list; out of memory

    >>> refault.Memory(2, "fifo").run("ABCA")[-1]
    Event(page='A', distance=1, activated=(), demoted=(), evicted=('B',), soft_fault=False)
    """

    page: Hashable
    distance: int
    activated: tuple[Hashable, ...] = ()
    demoted: tuple[Hashable, ...] = ()
    evicted: tuple[Hashable, ...] = ()
    soft_fault: bool = False

    @property
    def hit(self) -> bool:
        """The page was in memory."""
        return self.distance == HIT

    @property
    def refault(self) -> bool:
        """The page was not in memory, but had been."""
        return self.distance >= 0

    @property
    def text(self) -> str:
        """The event in words."""
        return f"{self.page}: {self.what}"

    @property
    def what(self) -> str:
        """The same without the page's name."""
        if self.distance == COLD:
            parts = ["fault, seen for the first time"]
        elif self.refault:
            parts = [f"refault, R = {self.distance}"]
        else:
            parts = ["soft fault" if self.soft_fault else "hit"]
        for done, pages in (("activated", self.activated), ("demoted", self.demoted), ("evicted", self.evicted)):
            if pages:
                parts.append(f"{', '.join(map(str, pages))} {done}")
        return "; ".join(parts)

    def __str__(self) -> str:
        """The event in words."""
        return self.text


class _Watched(list[int]):
    """The words of a State, noting each write of a step: the page, its word before, its word after."""

    def __init__(self, words: Sequence[int] = ()) -> None:
        super().__init__(words)
        self.writes: list[tuple[int, int, int]] = []

    def __setitem__(self, page: Any, word: Any) -> None:
        self.writes.append((page, self[page], word))
        super().__setitem__(page, word)


class Memory:
    """A memory of `memory` pages, one access at a time, with both lists and the shadow entries to look at.

    Runs the step function of `rules` (a name in RULES or a Rules) on plain lists.  A page is an integer >= 0 or a
    string; those in `anon` are anonymous memory, the others belong to files.  `opt` must be told the `trace` that
    will be accessed, in order.  Raises BadInput for anything else.

    >>> memory = refault.Memory(2, "balanced-2012")
    >>> for event in memory.run("ABACA"):
    ...     print(event)
    A: fault, seen for the first time
    B: fault, seen for the first time
    A: hit; A activated
    C: fault, seen for the first time; B evicted
    A: hit
    >>> memory.active, memory.inactive
    (['A'], ['C'])
    """

    def __init__(
        self,
        memory: int,
        rules: str | Rules = "proposal-2012",
        anon: Collection[Hashable] = (),
        trace: Sequence[Hashable] | None = None,
    ) -> None:
        self.rules = rule_set(rules)
        self.memory = check_memory(memory)
        self._anon = frozenset(_pages("anon", anon))
        self._ids: dict[Hashable, int] = {}
        self._labels: list[Hashable] = []
        self._future = None if trace is None else _pages("trace", trace)
        if self.rules.step is opt and self._future is None:
            raise BadInput("rules 'opt' looks into the future: expected Memory(..., trace=the accesses to come)")
        self._nodes = Nodes() if self.rules.step is linux and self.rules.choices.charged_nodes else None
        self._choices = self.rules.choices._replace(stale_statistics=0)
        slots = slots_for(self.memory + self.rules.choices.active_pages)
        self._m = State(
            word=_Watched(),
            ring=[EMPTY] * (2 * slots),
            n=[0] * LENGTHS,
            next_use=_next_uses(self._future or []),
            due=[],
            kernel=self._kernel(),
            memory=self.memory,
            mask=slots - 1,
        )
        self._m.n[TICK] = AGES
        if self.rules.choices.ghosts:
            slots = slots_for(max(1, self.memory * self.rules.choices.ghosts // 100))
            ghosts = self._m._replace(word=[], ring=[EMPTY] * (2 * slots), n=[0] * LENGTHS, mask=slots - 1)
            self._m = self._m._replace(ghosts=ghosts, target=[0.0])

    def _kernel(self) -> Kernel:
        parents = self._nodes.parents if self._nodes else []
        return Kernel(
            batch=[0] * 2 * BATCH,
            flushes=[],
            foreign=[],
            ahead=[],
            way=[],
            mapping=[],
            away=[],
            node_of=[],
            parents=parents,
            held=[0],
            entries=[0],
            older=[0],
            newer=[0],
            freed=[NEVER],
        )

    def access(self, page: Hashable) -> Event:
        """Touch `page`, and say what happened.  Raises BadInput for a page that is no integer >= 0 and no string."""
        page = _page(page)
        if self.rules.step is opt:
            self._check_foretold(page)
        m, number = self._m, self._number(page)
        m.word.writes.clear()
        soft_faults = m.n[SOFT_FAULTS]
        try:
            distance = self.rules.step(m, self._choices, number)
        except MemoryError as e:
            raise BadInput(f"memory is {self.memory} pages, too few under {self.rules.name}: {e}") from e
        check_lengths(m, self.rules)
        if not is_integer(distance):
            raise BadInput(
                f"rules {self.rules.name!r}: the step returned {distance!r}, expected HIT, COLD or a distance"
            )
        moves = [(self._labels[p], old, new) for p, old, new in m.word.writes]
        return Event(
            page=page,
            distance=distance,
            activated=tuple(p for p, old, new in moves if _on(old, INACTIVE) and _on(new, ACTIVE)),
            demoted=tuple(p for p, old, new in moves if _on(old, ACTIVE) and not _on(new, ACTIVE)),
            evicted=tuple(p for p, old, new in moves if old & RESIDENT and not new & RESIDENT),
            soft_fault=m.n[SOFT_FAULTS] > soft_faults,
        )

    def __repr__(self) -> str:
        """What is where."""
        lists = f"active {self.active}, inactive {self.inactive}, shadow {self.shadow}"
        return (
            f"<Memory of {self.memory} pages under {self.rules.name}: {lists}, workingset_time {self.workingset_time}>"
        )

    def run(self, pages: Sequence[Hashable]) -> list[Event]:
        """`access` for each of `pages`."""
        return [self.access(page) for page in pages]

    @property
    def active(self) -> list[Hashable]:
        """The active list, newest page first."""
        return self._list(ACTIVE)

    @property
    def inactive(self) -> list[Hashable]:
        """The inactive list, newest page first; for `opt`, whose list is a heap, the page that is due first."""
        if self.rules.step is opt:
            pages = self._m.ring[: self._m.n[LENGTH + INACTIVE]]
            return [self._labels[page] for page in sorted(pages, key=self._m.due.__getitem__)]
        return self._list(INACTIVE)

    @property
    def batch(self) -> list[Hashable]:
        """Pages in memory that are on no list yet, newest first; rules of Linux with batches only."""
        adding = self._m.kernel.batch[: self._m.n[ADDING]]
        return [self._labels[page] for page in reversed(adding)]

    @property
    def active_length(self) -> int:
        """Pages on the active list."""
        return int(self._m.n[LENGTH + ACTIVE])

    @property
    def unmapped(self) -> set[Hashable]:
        """The inactive pages whose next reference takes a soft fault, because they were demoted."""
        if self.rules.step is mglru:  # which unmaps nothing; it counts in that place
            return set()
        return {p for p, w in zip(self._labels, self._m.word, strict=True) if w & RESIDENT and w & UNMAPPED}

    @property
    def shadow(self) -> dict[Hashable, int]:
        """The shadow entries: for each evicted page, workingset_time when it was evicted, or `mglru` its generation."""
        words = zip(self._labels, self._m.word, strict=True)
        shift = GENERATION if self.rules.step is mglru else ENTRY
        return {page: word >> shift for page, word in words if not word & RESIDENT and word & SHADOW}

    @property
    def workingset_time(self) -> int:
        """The clock: pages that have left the inactive list so far."""
        return int(self._m.n[WORKINGSET_TIME])

    @property
    def counts(self) -> dict[str, int]:
        """The counters of Replay, so far."""
        return {name: self._m.n[FAULTS + i] for i, name in enumerate(COUNTERS)}

    def _list(self, which: int) -> list[Hashable]:
        m, base = self._m, which * (self._m.mask + 1)
        slots = range(m.n[NEWEST + which] - 1, m.n[OLDEST + which] - 1, -1)
        pages = (m.ring[base + (slot & m.mask)] for slot in slots)
        return [self._labels[page] for page in pages if page != EMPTY]

    def _number(self, page: Hashable) -> int:
        if page not in self._ids:
            self._ids[page] = len(self._labels)
            self._labels.append(page)
            self._m.word.append(ANON if page in self._anon else 0)
            self._m.due.append(0)
            if self.rules.choices.ghosts:
                self._m.ghosts.word.append(0)
            if self._nodes:
                self._hold(self._ids[page], page)
        return self._ids[page]

    def _hold(self, number: int, page: Hashable) -> None:
        k, nodes = self._m.kernel, self._nodes or Nodes()
        k.node_of.append(nodes.number(index_of(page, number)))
        while len(k.held) < len(nodes.parents):
            for column in (k.held, k.entries, k.older, k.newer):
                column.append(0)
            k.freed.append(NEVER)

    def _check_foretold(self, page: Hashable) -> None:
        now, future = self._m.n[NOW], self._future or []
        if now >= len(future) or future[now] != page:
            told = f"page {future[now]!r}" if now < len(future) else "the end"
            raise BadInput(f"access {now} is to page {page!r}, but the trace given to Memory says {told}")


def _page(page: Any) -> Hashable:
    if isinstance(page, str):
        return page
    if is_integer(page) and page >= 0:
        return int(page)
    raise BadInput(f"page {page!r} is a {type(page).__name__}, expected an integer >= 0 or a string")


def _pages(what: str, given: Any) -> list[Hashable]:
    try:
        return [_page(page) for page in given]
    except TypeError as e:
        raise BadInput(f"{what} is {given!r}, expected a sequence of pages") from e


def _on(word: int, which: int) -> bool:
    return bool(word & RESIDENT) and bool(word & ON_ACTIVE) == bool(which)


# next_uses of replays.py once more, for where numpy is not installed
def _next_uses(pages: Sequence[Hashable]) -> list[int]:
    due: dict[Hashable, int] = {}
    later = [0] * len(pages)
    for i in range(len(pages) - 1, -1, -1):
        later[i] = due.get(pages[i], len(pages))
        due[pages[i]] = i
    return later
