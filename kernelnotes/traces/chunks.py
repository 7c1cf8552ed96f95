"""Accesses that come a part at a time, from a file or a generator: a trace larger than memory."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from kernelnotes import intrinsics
from kernelnotes.errors import BadInput
from kernelnotes.intrinsics import AHEAD, have_numba, prefetch
from kernelnotes.provenance import MODEL, Provenance
from kernelnotes.traces.trace import MOST_PAGES, Trace, page_labels


class Chunks:
    """Parts of a trace, in order; each an array of page labels: integers from 0 up, or strings.

    parts : an iterable of arrays, which can be gone through once if it is an iterator; or a function that gives one
    name, provenance : as in Trace
    """

    def __init__(
        self, parts: Iterable[Any] | Callable[[], Iterable[Any]], name: str = "trace", provenance: Provenance = MODEL
    ) -> None:
        self._parts, self.name, self.provenance = parts, name, provenance

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        """The parts.  Raises BadInput for one that is no flat array of page labels."""
        for part in self._parts() if callable(self._parts) else self._parts:
            if isinstance(part, np.ndarray) and part.dtype == np.uint64 and part.ndim == 1:  # may be hashes of 64 bits
                yield part
            elif len(part):
                yield page_labels(part, self.name)

    def __repr__(self) -> str:
        """Its name; how much there is nobody knows before it is read."""
        return f"<Chunks of {self.name} ({self.provenance})>"

    def numbered(self) -> Iterator[tuple[npt.NDArray[np.int32], Numbering]]:
        """Each part as dense page ids, with what is known of them so far."""
        numbering = Numbering(self.name)
        for part in self:
            yield numbering.number(part), numbering

    def trace(self) -> Trace:
        """All of it in memory.  Raises BadInput if there is nothing."""
        pages, numbering = [], Numbering(self.name)
        for part in self:
            pages.append(numbering.number(part))
        if not pages:
            raise BadInput(f"{self.name}: it is empty, expected at least one access")
        return Trace(
            pages=np.concatenate(pages),
            labels=numbering.labels.copy(),
            anon=np.zeros(len(numbering), dtype=np.bool_),
            name=self.name,
            provenance=self.provenance,
        )


def as_chunks(trace: Any) -> Chunks | None:
    """`trace` if it comes in parts: Chunks, or an iterator over arrays; None for everything else."""
    if isinstance(trace, Chunks):
        return trace
    if not isinstance(trace, Iterator):
        return None
    first = next(trace, None)
    rest = itertools.chain([] if first is None else [first], trace)
    if isinstance(first, np.ndarray) and first.ndim:
        return Chunks(rest)
    return Chunks([list(rest)])


SPARSE = 4  # slots of 4 bytes per page: as much memory as the hash table takes with its keys


class Numbering:
    """Dense ids for labels: 0, 1, 2 and so on in order of first appearance, over any number of parts.

    Integers go through a hash table of 4 bytes a slot, at most three quarters full, whose keys are the labels' own
    array, 8 bytes a page; or, while they are small for their number or for that of the accesses in a part, through one
    with a slot for each up to the largest.  Strings go through a dictionary.
    """

    def __init__(self, name: str) -> None:
        self._name, self._count = name, 0
        self._labels: npt.NDArray[Any] = np.empty(768, dtype=np.int64)
        self._table = np.full(1024, -1, dtype=np.int32)
        self._largest = 0  # of the labels
        self._longest = 0  # of the parts, in accesses
        self._direct = False  # whether the table has a slot for each label up to its length
        self._ids: dict[Any, int] = {}  # of strings; and of integers where numba is not installed
        self._kind = ""

    def __len__(self) -> int:
        """How many distinct pages there were so far."""
        return len(self._ids) or self._count

    @property
    def labels(self) -> npt.NDArray[Any]:
        """What each page is called, by its id; shape (len(self),)."""
        if self._kind == "O":
            return np.array(list(self._ids), dtype=object)
        labels = np.array(list(self._ids), dtype=np.int64) if self._ids else self._labels[: self._count]
        return labels.view(np.uint64) if self._kind == "u" else labels

    def number(self, labels: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
        """The ids of `labels`.  Raises BadInput for strings after integers, and for too many distinct pages."""
        kind = "O" if labels.dtype.kind == "O" else "i"
        if self._kind and (kind == "O") != (self._kind == "O"):
            raise BadInput(f"{self._name}: strings and integers, expected page labels of one kind")
        keys, largest = labels, 0
        if kind == "i":
            keys = labels.view(np.int64) if labels.dtype == np.uint64 else labels.astype(np.int64, copy=False)
            largest = int(keys.view(np.uint64).max(initial=0))  # one below 0 is larger than all
            kind = "u" if labels.dtype == np.uint64 and largest >= 2**63 else kind
        self._kind = "u" if "u" in (kind, self._kind) else kind
        if kind == "O" or not have_numba():
            ids = self._ids
            return np.array([ids.setdefault(key, len(ids)) for key in keys.tolist()], dtype=np.int32)
        out = np.empty(len(keys), dtype=np.int32)
        self._largest, self._longest = max(self._largest, largest), max(self._longest, len(keys))
        self._choose()
        done = 0
        while done < len(keys):
            if self._direct:  # by unsigned keys: of a signed index, compiled code asks whether it counts from the end
                number, given = _compiled()[2], keys.view(np.uint64)
            else:
                number, given = _compiled()[0], keys
            done, self._count = number(given, done, self._table, self._labels, self._count, out)
            if done < len(keys):
                self._grow(2 * len(self._labels))
        return out

    def _choose(self) -> None:
        # A slot for each label up to the largest, where that is at most SPARSE times as many as there are pages, or
        # accesses in a part, which take more memory than that.
        direct = self._largest < SPARSE * max(self._count, self._longest)
        if direct and (not self._direct or self._largest >= len(self._table)):
            self._table = np.full(self._largest + 1, -1, dtype=np.int32)
            self._table[self._labels[: self._count]] = np.arange(self._count, dtype=np.int32)
            self._direct = True
        elif self._direct and not direct:
            self._direct = False
            self._grow(len(self._labels))

    def _grow(self, room: int) -> None:
        if self._count >= MOST_PAGES // 2:
            raise BadInput(f"{self._name}: more than {self._count} distinct pages")
        slots = 1 << (room * 4 // 3 - 1).bit_length()
        labels = np.empty(room if self._direct else slots // 4 * 3, dtype=np.int64)
        labels[: self._count] = self._labels[: self._count]
        self._labels = labels
        if not self._direct:
            self._table = np.full(slots, -1, dtype=np.int32)
            _compiled()[1](self._table, self._labels, self._count)


@functools.cache
def _compiled() -> tuple[Callable[..., Any], ...]:
    import numba

    intrinsics.register()
    numba.extending.register_jitable(forceinline=True, **intrinsics.OPTIONS)(slot_of)
    return tuple(intrinsics.compiled(function) for function in (number_pages, fill_table, number_directly))


def slot_of(key: Any, mask: int) -> Any:
    """Where in the table to look first.  Compiled only: integers wrap there."""
    mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)  # Knuth's multiplicative hash, of 2**64 / golden ratio
    return np.int64(mixed >> np.uint64(32)) & mask


def number_pages(keys: Any, done: int, table: Any, labels: Any, count: int, out: Any) -> tuple[int, int]:
    """Ids of keys[done:] into `out`, until all are done or `labels` is full; how many are done, how many ids exist."""
    mask = len(table) - 1
    for i in range(done, len(keys)):
        if i + 2 * AHEAD < len(keys):  # two memory accesses depend on each other: the second one is asked for later
            prefetch(table, slot_of(keys[i + 2 * AHEAD], mask))
            prefetch(labels, max(table[slot_of(keys[i + AHEAD], mask)], 0))
        slot = slot_of(keys[i], mask)
        while table[slot] >= 0 and labels[table[slot]] != keys[i]:
            slot = (slot + 1) & mask
        if table[slot] < 0:
            if count == len(labels):
                return i, count
            table[slot], labels[count] = count, keys[i]
            count += 1
        out[i] = table[slot]
    return len(keys), count


def fill_table(table: Any, labels: Any, count: int) -> None:
    """Put the first `count` labels into an empty table."""
    mask = len(table) - 1
    for number in range(count):
        slot = slot_of(labels[number], mask)
        while table[slot] >= 0:
            slot = (slot + 1) & mask
        table[slot] = number


def number_directly(keys: Any, done: int, table: Any, labels: Any, count: int, out: Any) -> tuple[int, int]:
    """As number_pages, for a table with a slot for each key."""
    for i in range(done, len(keys)):
        if i + AHEAD < len(keys):
            prefetch(table, keys[i + AHEAD])
        number = table[keys[i]]
        if number < 0:
            if count == len(labels):
                return i, count
            number = count
            table[keys[i]], labels[count] = number, keys[i]
            count += 1
        out[i] = number
    return len(keys), count
