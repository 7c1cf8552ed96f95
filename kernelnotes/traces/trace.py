"""A trace in memory: dense page ids and what they stand for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from kernelnotes.errors import BadInput
from kernelnotes.provenance import MODEL, Provenance

MOST_PAGES = 2**31 - 1  # dense ids are int32
READ, MAPPED, EXECUTABLE = range(3)  # how a page is accessed: by read(), through a mapping, through a mapping of code


@dataclass(frozen=True, eq=False, kw_only=True)
class Trace:
    """Accesses to pages, in order.

    pages : int32 array, shape (n,), n >= 1; dense page ids, 0 to unique - 1 in order of first appearance
    labels : array, shape (unique,); what each page is called in the input
    anon : bool array, shape (unique,); True for an anonymous page, False for a page of a file
    mapped : uint8 array, shape (n,); per access READ, MAPPED or EXECUTABLE, which matters to rules of Linux.  Empty:
        all are READ
    name, provenance : for captions
    """

    pages: npt.NDArray[np.int32]
    labels: npt.NDArray[Any]
    anon: npt.NDArray[np.bool_]
    mapped: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, dtype=np.uint8))
    name: str = "trace"
    provenance: Provenance = field(default=MODEL)

    def __post_init__(self) -> None:
        """Refuse ids that are no index into `labels`: compiled replays would read and write beyond their arrays."""
        if self.pages.dtype != np.int32 or self.pages.ndim != 1 or len(self.pages) == 0:
            raise BadInput(f"{self.name}: expected a flat int32 array of page ids; Trace.of makes one")
        if len(self.anon) != len(self.labels) or self.pages.min() < 0 or self.pages.max() >= len(self.labels):
            raise BadInput(
                f"{self.name}: expected ids below {len(self.labels)}, the number of labels, and as many anon"
            )
        if self.mapped.dtype != np.uint8 or self.mapped.ndim != 1 or len(self.mapped) not in (0, len(self.pages)):
            raise BadInput(f"{self.name}: mapped: expected a flat uint8 array, as long as pages, or empty")
        if len(self.mapped) and self.mapped.max() > EXECUTABLE:
            raise BadInput(f"{self.name}: mapped has {self.mapped.max()}, expected 0 to {EXECUTABLE}")

    @classmethod
    def of(
        cls,
        pages: Any,
        name: str = "trace",
        anon: Iterable[Any] = (),
        provenance: Provenance = MODEL,
        mapped: Any = READ,
    ) -> Trace:
        """A Trace from any sequence of page names: integers >= 0, or strings.

        `anon` lists the pages that are anonymous memory; all others belong to files.  `mapped` is how they are
        accessed, READ, MAPPED or EXECUTABLE, one for all or one each.  Raises BadInput for an empty or nested sequence,
        for negative numbers, floats and missing values, for anonymous pages that do not occur, for other ways.
        """
        labels = page_labels(pages, name)
        ids, distinct = pd.factorize(labels)
        if len(distinct) > MOST_PAGES:
            raise BadInput(f"{name}: {len(distinct)} distinct pages, expected at most {MOST_PAGES}")
        names = np.asarray(distinct)
        anonymous = set(_anonymous(anon, name))
        is_anon = np.fromiter((page in anonymous for page in names.tolist()), dtype=np.bool_, count=len(names))
        if is_anon.sum() != len(anonymous):
            absent = sorted(anonymous - set(names.tolist()), key=str)
            raise BadInput(f"{name}: anonymous page {absent[0]!r} does not occur in the trace")
        ways = _ways(mapped, len(ids), name)
        return cls(
            pages=ids.astype(np.int32), labels=names, anon=is_anon, mapped=ways, name=name, provenance=provenance
        )

    def __len__(self) -> int:
        """Number of accesses."""
        return len(self.pages)

    @property
    def unique(self) -> int:
        """Number of distinct pages, the footprint."""
        return len(self.labels)

    def __iter__(self) -> Iterator[Any]:
        """The label of each access, in order: a trace may stand wherever a sequence of pages may."""
        return iter(self.labels[self.pages].tolist())

    def __repr__(self) -> str:
        """Name and size; never the accesses."""
        return f"<Trace {self.name}: {len(self):,} accesses to {self.unique:,} pages ({self.provenance})>"

    def __add__(self, after: TraceLike) -> Trace:
        """The trace followed by another; pages of the same label are the same page."""
        other = as_trace(after)
        both = np.concatenate([self.labels[self.pages], other.labels[other.pages]])
        anon = [*self.labels[self.anon].tolist(), *other.labels[other.anon].tolist()]
        origin = self.provenance.joined(other.provenance)
        ways = np.zeros(len(self) + len(other), dtype=np.uint8)
        for part, where in ((self, slice(len(self))), (other, slice(len(self), None))):
            if len(part.mapped):
                ways[where] = part.mapped
        return Trace.of(both, f"{self.name}, then {other.name}", anon, origin, ways)

    def renamed(self, name: str) -> Trace:
        """The same accesses under another name."""
        return replace(self, name=name)


TraceLike: TypeAlias = Trace | Any  # a Trace, or any sequence that Trace.of takes


def as_trace(trace: TraceLike) -> Trace:
    """`trace` itself if it is a Trace, else Trace.of(trace)."""
    return trace if isinstance(trace, Trace) else Trace.of(trace)


def page_labels(given: Any, name: str) -> npt.NDArray[Any]:
    """A flat array of integers from 0 up, or of strings; raises BadInput for anything else."""
    whole = isinstance(given, np.ndarray) and given.dtype.kind in "iu"
    pages: npt.NDArray[Any] = given if whole else _array(given, name)
    if pages.ndim == 1 and len(pages) == 0:
        raise BadInput(f"{name}: it is empty, expected at least one access")
    if pages.ndim != 1:
        raise BadInput(f"{name}: expected at least one access in a flat sequence, got shape {pages.shape}")
    if pages.dtype.kind == "O":
        return pages
    if pages.min() < 0:
        where = int(np.argmax(pages < 0))
        raise BadInput(f"{name}: access {where} is to page {pages[where]}, expected page numbers >= 0")
    if pages.max() >= 2**63:
        raise BadInput(f"{name}: page {pages.max()} is out of range, expected page numbers from 0 to 2**63 - 1")
    return pages


def _array(given: Any, name: str) -> npt.NDArray[Any]:
    # numpy would take a float among integers for a float array, and True for 1
    if isinstance(given, (Set, Mapping)) or getattr(given, "ndim", 1) > 1:  # no order; a table of what?
        raise BadInput(f"{name}: expected a flat sequence of page numbers or strings, got {type(given).__name__}")
    try:
        pages = list(given)
    except TypeError as e:
        raise BadInput(f"{name}: expected a sequence of page numbers, got {type(given).__name__} {given!r}") from e
    kinds = set(map(type, pages))
    if kinds and all(issubclass(kind, str) for kind in kinds):
        return np.asarray(pages if kinds == {str} else list(map(str, pages)), dtype=object)
    for page in pages if kinds != {int} else ():
        if type(page) is not int and not isinstance(page, np.integer):
            wrong = f"page {page!r} is a {type(page).__name__}"
            raise BadInput(f"{name}: {wrong}, expected integers >= 0, or strings throughout")
    for page in (max(pages, default=0), min(pages, default=0)):
        if not -(2**63) <= page < 2**63:
            raise BadInput(f"{name}: page {page} is out of range, expected page numbers from 0 to 2**63 - 1")
    return np.asarray(list(map(int, pages)), dtype=np.int64)


def _ways(given: Any, accesses: int, name: str) -> npt.NDArray[np.uint8]:
    """Per access, or an empty array if all are READ."""
    ways = np.asarray(given)
    wrong = ways.dtype.kind not in "iu" or ways.shape not in ((), (accesses,))
    if wrong or ways.min(initial=READ) < READ or ways.max(initial=READ) > EXECUTABLE:
        raise BadInput(f"{name}: mapped is {given!r:.80}, expected READ, MAPPED or EXECUTABLE, for all or for each")
    if not ways.any():
        return np.zeros(0, dtype=np.uint8)
    return np.broadcast_to(ways, accesses).astype(np.uint8)


def _anonymous(given: Iterable[Any], name: str) -> list[Any]:
    try:
        return list(dict.fromkeys(given))
    except TypeError as e:
        raise BadInput(f"{name}: anon is {given!r}, expected a collection of page numbers or strings") from e
