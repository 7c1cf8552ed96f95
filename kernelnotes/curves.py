"""How many misses a memory of *any* size would have: one pass over a trace, instead of one per size.

    reuse_distances("ABCA")         -1 -1 -1 2      two other pages were touched since the last A
    miss_ratio(trace)               the miss ratio of LRU at every size, exact
    miss_ratio(trace, sample=0.01)  the same from one page of a hundred, with an estimate of its error

A memory of m pages that always throws out the page touched longest ago (LRU) holds just the last m different pages.  So
an access is a hit if and only if fewer than m others came in between: its *reuse distance* is below m, whatever m is.
The refault distance is the kernel's estimate of it, made without looking at hits: it counts activations and evictions
since the page left memory, not different pages.

Left out: every rule but LRU.  A curve of another one takes a replay per size, `refault.sweep`.

Source: Mattson et al., Evaluation techniques for storage hierarchies, 1970; Olken, Efficient methods for calculating
the success function of fixed space replacement policies, 1981; Waldspurger et al., Efficient MRC construction with
SHARDS, 2015 (sampling by a hash of the page, and its correction SHARDS-adj).
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from kernelnotes.errors import BadInput
from kernelnotes.traces import TraceLike, as_chunks, as_trace

COLD = -1  # the distance of a page's first access: no memory could have held it
PARTS = 8  # of a sample, each with a curve of its own: how far they differ tells the error
WORD, BLOCK = 32, 512  # positions per word of the bitmap, and per counter of the tree above it


def reuse_distances(trace: TraceLike) -> npt.NDArray[np.int64]:
    """For each access how many other pages were touched since the last one to its page; COLD for the first.

    The result has shape (accesses,).  Takes memory in proportion to the distinct pages, beside the result, and time in
    proportion to accesses times the logarithm of the distinct pages.  Raises BadInput for what is no trace.
    """
    window = _Window()
    return np.concatenate([window.distances(pages, unique) for pages, unique in _parts(trace)])


def miss_ratio(trace: TraceLike, sizes: Iterable[int] | None = None, sample: float = 1.0) -> pd.DataFrame:
    """The share of accesses that miss in an LRU memory of each size, in pages; first accesses are misses.

    trace : as for refault.replay, also in parts; then the memory that this takes grows with the distinct pages, and
        with a sample's accesses
    sizes : by default all at which the curve changes
    sample : below 1 a share of the *pages*, from 2 a number of them: only those are looked at, chosen by a hash, and
        the column `error` has the standard error of the estimate
    Raises BadInput for sizes below 1, a sample that is neither, and one in which some of PARTS parts have no page.
    """
    if isinstance(sample, bool) or not (0 < sample <= 1 or (sample >= 2 and sample == int(sample))):
        raise BadInput(
            f"miss_ratio: a sample of {sample}, expected a share above 0 and at most 1, or a number of pages from 2 up"
        )
    wanted = None if sizes is None else _sizes(sizes)
    if sample != 1:
        return _estimated(_sampled(trace, sample), wanted).rename_axis("memory")
    window, hits, accesses = _Window(), np.zeros(1, dtype=np.int64), 0
    for pages, unique in _parts(trace):
        distances = window.distances(pages, unique)
        hits = _sum(hits, np.bincount(distances[distances != COLD], minlength=1))
        accesses += len(pages)
    misses = accesses - np.concatenate([[0], np.cumsum(hits)])  # [m]: in a memory of m pages
    at = np.arange(1, len(misses)) if wanted is None else wanted
    frame = pd.DataFrame({"miss_ratio": misses[np.minimum(at, len(misses) - 1)] / accesses}, index=at)
    if wanted is None:
        frame = frame[frame["miss_ratio"].diff() != 0]
    return frame.rename_axis("memory")


def _parts(trace: TraceLike) -> Iterator[tuple[npt.NDArray[np.int32], int]]:
    """Page ids, and how many distinct pages there were up to their end."""
    chunks, empty = as_chunks(trace), True
    if chunks is None:
        whole = as_trace(trace)
        yield whole.pages, whole.unique
        return
    for pages, numbering in chunks.numbered():
        empty = False
        yield pages, len(numbering)
    if empty:
        raise BadInput(f"{chunks.name}: it is empty, expected at least one access")


def _sum(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    longer, shorter = (a, b) if len(a) >= len(b) else (b, a)
    total = longer.copy()
    total[: len(shorter)] += shorter
    return total


def _sizes(sizes: Iterable[int]) -> npt.NDArray[np.int64]:
    found = np.asarray(list(sizes))
    if found.ndim != 1 or found.dtype.kind not in "iu" or len(found) == 0 or found.min() < 1:
        raise BadInput("miss_ratio: expected at least one size, each a number of pages from 1 up")
    return found.astype(np.int64)


# ------------------------------------------------------------------------------------- sampling


class _Sample(NamedTuple):
    pages: npt.NDArray[np.int32]  # accesses to the pages that are in the sample
    unique: int  # distinct pages of the whole trace
    accesses: int  # of the whole trace
    rate: float  # which share of all pages is in it


def _sampled(trace: TraceLike, sample: float) -> _Sample:
    # With a number of pages the rate falls as pages come; what is in a sample is in those of higher rates too.
    kept: list[npt.NDArray[np.int32]] = []
    accesses, unique, rate = 0, 0, 1.0
    for pages, unique in _parts(trace):
        accesses += len(pages)
        kept.append(pages)
        now = min(1.0, sample if sample < 1 else sample / unique)
        if now < rate:
            rate = now
            kept = [part[_hash(part.astype(np.uint64)) < int(rate * 2**64)] for part in kept]
        elif rate < 1:
            kept[-1] = pages[_hash(pages.astype(np.uint64)) < int(rate * 2**64)]
    return _Sample(np.concatenate(kept), unique, accesses, rate)


def _estimated(sample: _Sample, sizes: npt.NDArray[np.int64] | None) -> pd.DataFrame:
    # A page is in the sample by a hash of its number, so with all its accesses: distances within it are, on average,
    # `rate` times those of the whole.  Each part of the pages gives a curve; they are as good as independent.
    hashed = _hash(np.arange(sample.unique, dtype=np.uint64))
    inside = hashed < int(sample.rate * 2**64) if sample.rate < 1 else np.ones(sample.unique, dtype=bool)
    part = np.where(inside, hashed % np.uint64(PARTS), PARTS).astype(np.int64)
    if np.bincount(part, minlength=PARTS)[:PARTS].min() == 0:
        raise BadInput(
            f"miss_ratio: a sample of {sample.rate:g} of {sample.unique} pages is too small,"
            f" expected some {4 * PARTS} pages"
        )
    whole = _scaled(sample, part < PARTS, sample.rate)
    at = np.unique(np.concatenate([[1], np.ceil(whole[0]).astype(np.int64) + 1])) if sizes is None else sizes
    curves = [_at(_scaled(sample, part == k, sample.rate / PARTS), at) for k in range(PARTS)]
    error = np.std(curves, axis=0, ddof=1) / np.sqrt(PARTS)
    return pd.DataFrame({"miss_ratio": _at(whole, at), "error": error}, index=at)


def _hash(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    # The finalizer of splitmix64 (Steele, Lea and Flood 2014): neighbouring numbers come out far apart.
    mixed = numbers + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _scaled(sample: _Sample, chosen: npt.NDArray[np.bool_], share: float) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Distances that occur, scaled to the whole trace, ascending; and the share of accesses that hit above each."""
    pages = sample.pages[chosen[sample.pages]]
    numbers = np.cumsum(chosen) - 1
    distances = _Window().distances(numbers[pages].astype(np.int32), int(chosen.sum()))
    found, counts = np.unique(distances[distances != COLD], return_counts=True)
    expected = share * sample.accesses
    # As many accesses as there should be, the missing ones at distance 0: a hot page, in or out of the sample, is the
    # main error otherwise (SHARDS-adj).
    hits = np.cumsum(counts) + expected - len(pages)
    return found / share, np.clip(hits / expected, 0, 1)


def _at(curve: tuple[npt.NDArray[Any], npt.NDArray[Any]], sizes: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    distances, hits = curve
    place = np.searchsorted(distances, sizes)  # how many distances are below the size
    return 1 - np.concatenate([[0.0], hits])[place]


# ------------------------------------------------------------------------------------- one pass


class _Window:
    """What `one_pass` goes on with from part to part; it grows with the distinct pages."""

    def __init__(self) -> None:
        self._last = np.zeros(0, dtype=np.int64)
        self._page_at = np.zeros(0, dtype=np.int64)
        self._bitmap, self._tree = np.zeros(0, dtype=np.int64), np.zeros(1, dtype=np.int64)
        self._place = np.zeros(2, dtype=np.int64)  # bits that are set, next position

    def distances(self, pages: npt.NDArray[np.int32], unique: int) -> npt.NDArray[np.int64]:
        """Of the next part; `unique` pages are known at its end."""
        one_pass, move_together = _pass()
        if unique > len(self._last):
            self._last = np.concatenate([self._last, np.full(unique - len(self._last), COLD, dtype=np.int64)])
        window = -(-2 * max(unique, BLOCK) // BLOCK) * BLOCK
        if window > len(self._page_at):
            window = max(window, len(self._page_at) * 5 // 4 // BLOCK * BLOCK)  # seldom
            page_at = np.zeros(window, dtype=np.int64)
            page_at[: len(self._page_at)] = self._page_at
            self._page_at = page_at
            self._bitmap = np.zeros(window // WORD, dtype=np.int64)
            self._tree = np.zeros(window // BLOCK + 1, dtype=np.int64)
            move_together(self._last, self._page_at, self._bitmap, self._tree)
            self._place[1] = self._place[0]
        distances = np.empty(len(pages), dtype=np.int64)
        one_pass(pages, self._last, self._page_at, self._bitmap, self._tree, self._place, distances)
        return distances


@functools.cache
def _pass() -> tuple[Callable[..., None], Callable[..., None]]:
    if not importlib.util.find_spec("numba"):
        return one_pass, move_together
    import numba

    def compiled(function: Callable[..., None]) -> Callable[..., None]:
        try:
            made: Callable[..., None] = numba.njit(cache=True)(function)
        except RuntimeError:  # there is no folder that numba could write to
            made = numba.njit(function)
        return made

    for function in (ones, move_together):
        numba.extending.register_jitable(function)
    return compiled(one_pass), compiled(move_together)


def one_pass(pages: Any, last: Any, page_at: Any, bitmap: Any, tree: Any, place: Any, distances: Any) -> None:
    """The distances of all accesses.

    Each access takes the next position of a window, and its bit in the bitmap; the page's earlier position loses its
    own.  So bits are where pages were touched last, and the bits behind a position count the pages since.  `tree` is a
    Fenwick tree over blocks of the bitmap.  When the window is full the positions are moved together.
    """
    window, live, now = len(page_at), place[0], place[1]
    for k in range(len(pages)):
        page = pages[k]
        if now == window:
            move_together(last, page_at, bitmap, tree)
            now = live
        before = last[page]
        if before == COLD:
            distances[k] = COLD
            live += 1
        else:
            # Bits up to and with `before`: those of its word, of the words before it in its block, of earlier blocks.
            word, block = before // WORD, before // BLOCK
            upto = ones(bitmap[word] & ((2 << before % WORD) - 1))
            for w in range(block * (BLOCK // WORD), word):
                upto += ones(bitmap[w])
            i = block
            while i > 0:
                upto += tree[i]
                i -= i & -i
            distances[k] = live - upto
            bitmap[word] ^= 1 << before % WORD
            i = block + 1
            while i < len(tree):
                tree[i] -= 1
                i += i & -i
        last[page], page_at[now] = now, page
        bitmap[now // WORD] |= 1 << now % WORD
        i = now // BLOCK + 1
        while i < len(tree):
            tree[i] += 1
            i += i & -i
        now += 1
    place[0], place[1] = live, now


def ones(word: Any) -> Any:
    """How many of its 32 bits are set."""
    word = word - ((word >> 1) & 0x55555555)
    word = (word & 0x33333333) + ((word >> 2) & 0x33333333)
    word = (word + (word >> 4)) & 0x0F0F0F0F
    return ((word * 0x01010101) >> 24) & 0xFF


def move_together(last: Any, page_at: Any, bitmap: Any, tree: Any) -> None:
    """Give the pages that were touched the first positions, in their order."""
    live = 0
    for position in range(len(page_at)):
        page = page_at[position]
        if last[page] == position:
            last[page], page_at[live] = live, page
            live += 1
    bitmap[:] = 0
    tree[:] = 0
    for position in range(live):
        bitmap[position // WORD] |= 1 << position % WORD
        i = position // BLOCK + 1
        while i < len(tree):
            tree[i] += 1
            i += i & -i
