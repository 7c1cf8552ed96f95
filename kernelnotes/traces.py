"""Page-access traces: which page of memory a program touched, in order.

A trace is the input of every model here.  Time in it is counted in accesses; a page is a number from 0 up in order
of first appearance, and `labels` keeps what it was called outside.  The generators are the textbook shapes that page
replacement is judged by; each is seeded and gives the same trace for the same arguments.

Left out on purpose: when an access happened, whether it wrote, how many bytes of the page it touched.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from kernelnotes.errors import BadInput
from kernelnotes.provenance import MODEL, Provenance

MOST_PAGES = 2**31 - 1  # dense ids are int32


@dataclass(frozen=True, eq=False, kw_only=True)
class Trace:
    """Accesses to pages, in order.

    pages : int32 array, shape (n,), n >= 1; dense page ids, 0 to unique - 1 in order of first appearance
    labels : array, shape (unique,); what each page is called in the input
    anon : bool array, shape (unique,); True for an anonymous page, False for a page of a file
    name, provenance : for captions
    """

    pages: npt.NDArray[np.int32]
    labels: npt.NDArray[Any]
    anon: npt.NDArray[np.bool_]
    name: str = "trace"
    provenance: Provenance = field(default=MODEL)

    @classmethod
    def of(cls, pages: Any, name: str = "trace", anon: Iterable[Any] = (), provenance: Provenance = MODEL) -> Trace:
        """A Trace from any sequence of page names: integers >= 0, or strings.

        `anon` lists the pages that are anonymous memory; all others belong to files.  Raises BadInput for an empty or
        nested sequence, for negative numbers, floats and missing values, and for anonymous pages that do not occur.
        """
        labels = _page_labels(pages, name)
        ids, distinct = pd.factorize(labels)
        if len(distinct) > MOST_PAGES:
            raise BadInput(f"{name}: {len(distinct)} distinct pages, expected at most {MOST_PAGES}")
        names = np.asarray(distinct)
        anonymous = list(anon)
        is_anon = np.isin(names, anonymous) if anonymous else np.zeros(len(names), dtype=np.bool_)
        if is_anon.sum() != len(set(anonymous)):
            absent = sorted(set(anonymous) - set(names.tolist()), key=str)
            raise BadInput(f"{name}: anonymous page {absent[0]!r} does not occur in the trace")
        return cls(pages=ids.astype(np.int32), labels=names, anon=is_anon, name=name, provenance=provenance)

    def __len__(self) -> int:
        """Number of accesses."""
        return len(self.pages)

    @property
    def unique(self) -> int:
        """Number of distinct pages, the footprint."""
        return len(self.labels)

    def __repr__(self) -> str:
        """Name and size; never the accesses."""
        return f"<Trace {self.name}: {len(self):,} accesses to {self.unique:,} pages ({self.provenance})>"

    def __add__(self, after: TraceLike) -> Trace:
        """The trace followed by another; pages of the same label are the same page."""
        other = as_trace(after)
        both = np.concatenate([self.labels[self.pages], other.labels[other.pages]])
        anon = [*self.labels[self.anon].tolist(), *other.labels[other.anon].tolist()]
        return Trace.of(both, f"{self.name}, then {other.name}", anon, self.provenance)

    def renamed(self, name: str) -> Trace:
        """The same accesses under another name."""
        return replace(self, name=name)


TraceLike: TypeAlias = Trace | Any  # a Trace, or any sequence that Trace.of takes


def as_trace(trace: TraceLike) -> Trace:
    """`trace` itself if it is a Trace, else Trace.of(trace)."""
    return trace if isinstance(trace, Trace) else Trace.of(trace)


def _page_labels(given: Any, name: str) -> npt.NDArray[Any]:
    pages: npt.NDArray[Any] = given if isinstance(given, np.ndarray) else _array(given, name)
    if pages.ndim != 1 or len(pages) == 0:
        raise BadInput(f"{name}: expected at least one access in a flat sequence, got shape {pages.shape}")
    if pages.dtype.kind == "O" and all(type(page) is str for page in pages):
        return pages
    if pages.dtype.kind not in "iu":
        raise BadInput(f"{name}: pages are of type {pages.dtype}, expected integers >= 0, or strings throughout")
    if pages.min() < 0:
        where = int(np.argmax(pages < 0))
        raise BadInput(f"{name}: access {where} is to page {pages[where]}, expected page numbers >= 0")
    return pages


def _array(given: Any, name: str) -> npt.NDArray[Any]:
    # numpy would take a float among integers for a float array, and True for 1
    try:
        pages = list(given)
    except TypeError as e:
        raise BadInput(f"{name}: expected a sequence of page numbers, got {type(given).__name__} {given!r}") from e
    kinds = set(map(type, pages))
    if kinds == {str}:
        return np.asarray(pages, dtype=object)
    for page in pages if kinds != {int} else ():
        if type(page) is not int and not isinstance(page, np.integer):
            wrong = f"page {page!r} is a {type(page).__name__}"
            raise BadInput(f"{name}: {wrong}, expected integers >= 0, or strings throughout")
    if pages and max(pages) >= 2**63:
        raise BadInput(f"{name}: page {max(pages)} is too large, expected page numbers below 2**63")
    return np.asarray(pages)


def _count(what: str, value: Any, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not least <= value <= MOST_PAGES:
        raise BadInput(f"{what} is {value!r}, expected an integer from {least} to {MOST_PAGES}")
    return int(value)


def _share(what: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise BadInput(f"{what} is {value!r}, expected a share from 0 to 1")
    return value


def cyclic(pages: int, laps: int) -> Trace:
    """`laps` times through `pages` pages in the same order: the worst case of LRU as soon as one page does not fit."""
    numbers = np.tile(np.arange(_count("pages", pages)), _count("laps", laps))
    return Trace.of(numbers, f"cyclic({pages} pages, {laps} laps)")


def zipf(pages: int, n: int, s: float = 1.0, seed: int = 0) -> Trace:
    """`n` independent accesses; the k-th most popular of `pages` pages has a chance proportional to 1 / k**s.

    Which page has which rank is random.  s = 1 is close to many file servers and web caches; s = 0 is uniform.
    """
    return Trace.of(_zipf(pages, n, s, np.random.default_rng(seed)), f"zipf({pages} pages, s={s:g}, seed {seed})")


def _zipf(pages: int, n: int, s: float, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    if not 0 <= s <= 10:
        raise BadInput(f"s is {s!r}, expected an exponent from 0 to 10")
    chance = np.cumsum(1.0 / np.arange(1, _count("pages", pages) + 1) ** s)
    ranks = np.searchsorted(chance / chance[-1], rng.random(_count("n", n)), side="right")
    return rng.permutation(pages)[np.minimum(ranks, pages - 1)]


def uniform(pages: int, n: int, seed: int = 0) -> Trace:
    """`n` independent accesses, each of `pages` pages equally likely: nothing to learn from the past."""
    numbers = np.random.default_rng(seed).integers(0, _count("pages", pages), _count("n", n))
    return Trace.of(numbers, f"uniform({pages} pages, seed {seed})")


def scan_over_hot(hot: int, scan: int, n: int, share: float = 0.5, seed: int = 0) -> Trace:
    """A hot set under a scan: `n` accesses, of which `share` go through `scan` pages, each used once, as a backup does.

    The other accesses are uniform over `hot` pages, and so is what remains when the scan is through.
    """
    rng = np.random.default_rng(seed)
    numbers = rng.integers(0, _count("hot", hot), _count("n", n))
    scanning = rng.random(n) < _share("share", share)
    position = np.cumsum(scanning) - 1
    scanning &= position < _count("scan", scan)
    numbers[scanning] = hot + position[scanning]
    return Trace.of(numbers, f"scan over hot({hot} hot, {scan} scanned, share {share:g}, seed {seed})")


def shift(old: int, new: int, laps: int = 4, passes: int = 8) -> Trace:
    """The working set shifts: `laps` times through `old` pages, then `passes` times through `new` other pages.

    With old = new = 85 % of memory this is the case that the cover letter of the proposal reports.
    """
    before = np.tile(np.arange(_count("old", old)), _count("laps", laps))
    after = np.tile(np.arange(old, old + _count("new", new)), _count("passes", passes))
    return Trace.of(np.concatenate([before, after]), f"shift({old} x {laps}, then {new} x {passes})")


def mix(loop: int, pages: int, n: int, s: float = 1.0, share: float = 0.5, seed: int = 0) -> Trace:
    """`n` accesses: with chance `share` the next page of a loop over `loop` pages, else Zipf(s) over `pages` others."""
    rng = np.random.default_rng(seed)
    looping = rng.random(_count("n", n)) < _share("share", share)
    position = (np.cumsum(looping) - 1) % _count("loop", loop)
    numbers = np.where(looping, position, loop + _zipf(pages, n, s, rng))
    return Trace.of(numbers, f"mix(loop {loop}, zipf {pages}, s={s:g}, share {share:g}, seed {seed})")
