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
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from kernelnotes import intrinsics
from kernelnotes.errors import BadInput
from kernelnotes.intrinsics import AHEAD, have_numba, one_less_behind, ones, prefetch
from kernelnotes.traces import TraceLike, as_chunks, as_trace

COLD = -1  # the distance of a page's first access: no memory could have held it
PARTS = 8  # of a sample, each with a curve of its own: how far they differ tells the error
BLOCK = 1 << 14  # accesses whose distances are found first and counted then: faster than both at once
WORD, GROUP, STRETCH = 5, 11, 17  # log2 of the positions of a word of the bitmap, of 64 words, of 64 groups


def reuse_distances(trace: TraceLike) -> npt.NDArray[np.int64]:
    """For each access how many other pages were touched since the last one to its page; COLD for the first.

    The result has shape (accesses,).  Takes memory in proportion to the distinct pages, beside the result; an access
    takes some 25 ns, longer with many millions of pages.  Raises BadInput for what is no trace.

    >>> curves.reuse_distances("ABCA").tolist()
    [-1, -1, -1, 2]
    """
    distances = _Distances()
    return np.concatenate([distances.each(pages, unique) for pages, unique in _parts(trace)])


def miss_ratio(trace: TraceLike, sizes: Iterable[int] | None = None, sample: float = 1.0) -> pd.DataFrame:
    """The share of accesses that miss in an LRU memory of each size, in pages; first accesses are misses.

    trace : as for refault.replay, also in parts; then the memory that this takes grows with the distinct pages, and
        with a sample's accesses
    sizes : by default all at which the curve changes
    sample : below 1 a share of the *pages*, from 2 a number of them: only those are looked at, chosen by a hash, and
        the column `error` has the standard error of the estimate
    Raises BadInput for sizes below 1, a sample that is neither, and one in which some of PARTS parts have no page.

    >>> curves.miss_ratio("ABCABC")["miss_ratio"].to_dict()
    {1: 1.0, 3: 0.5}
    """
    if isinstance(sample, bool) or not (0 < sample <= 1 or (sample >= 2 and sample == int(sample))):
        raise BadInput(
            f"miss_ratio: a sample of {sample}, expected a share above 0 and at most 1, or a number of pages from 2 up"
        )
    wanted = None if sizes is None else _sizes(sizes)
    if sample != 1:
        return _estimated(_sampled(trace, sample), wanted).rename_axis("memory")
    distances, hits, accesses = _Distances(), np.zeros(1, dtype=np.int64), 0
    for pages, unique in _parts(trace):
        if unique + 1 > len(hits):
            hits = np.concatenate([hits, np.zeros(max(unique + 1, len(hits) * 5 // 4) - len(hits), dtype=np.int64)])
        distances.counted(pages, unique, hits)
        accesses += len(pages)
    hits[0] = 0  # those of no memory: first accesses
    misses = accesses - np.cumsum(np.trim_zeros(hits, "b") if hits.any() else hits[:1])  # [m]: in a memory of m pages
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
    distances = _Distances().each(numbers[pages].astype(np.int32), int(chosen.sum()))
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


class _Window(NamedTuple):
    """Where the pages were touched last; a page is a number, a position too, and each touch takes the next position.

    last : int32 per page, its position; COLD before its first access
    page_at : int32 per position, the page that took it
    bitmap : uint32 per word, a bit for each position at which a page was touched last
    in_group : int16 per word, the bits in the words before it in its group
    in_stretch : int32 per group, the bits in the groups before it in its stretch
    in_all : int32 per stretch, the bits in all stretches before it
    counts : int64, bits that are set, and the next position
    """

    last: npt.NDArray[np.int32]
    page_at: npt.NDArray[np.int32]
    bitmap: npt.NDArray[np.uint32]
    in_group: npt.NDArray[np.int16]
    in_stretch: npt.NDArray[np.int32]
    in_all: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int64]


class _Distances:
    """What goes on from part to part of a trace; it grows with the distinct pages."""

    def __init__(self) -> None:
        self._window = _with_room(None, 0)
        plain: tuple[Callable[..., None], ...] = (_one_pass, _add_up, _move_together)
        functions = _compiled() if have_numba() else plain
        self._one_pass, self._add_up, self._move_together = functions

    def counted(self, pages: npt.NDArray[np.int32], unique: int, hits: npt.NDArray[np.int64]) -> None:
        """Add the next part's distances d to `hits`, at d + 1 (COLD at 0); `unique` pages are known at its end."""
        for start in range(0, len(pages), BLOCK):
            self._add_up(self.each(pages[start : start + BLOCK], unique), hits)

    def each(self, pages: npt.NDArray[np.int32], unique: int) -> npt.NDArray[np.int64]:
        """Of the next part; `unique` pages are known at its end."""
        if unique > len(self._window.last):
            self._move_together(self._window)
            self._window = _with_room(self._window, max(unique, len(self._window.last) * 5 // 4))  # seldom
        distances = np.empty(len(pages), dtype=np.int64)
        self._one_pass(self._window, pages, distances)
        return distances


def _with_room(old: _Window | None, pages: int) -> _Window:
    # Twice as many positions as pages, so that to move them together costs O(1) per access.
    positions = 2 * pages + 1
    stretches = (positions >> STRETCH) + 1
    words, groups = stretches << STRETCH - WORD, stretches << STRETCH - GROUP
    window = _Window(
        last=np.full(pages, COLD, dtype=np.int32),
        page_at=np.zeros(positions, dtype=np.int32),
        bitmap=np.zeros(words, dtype=np.uint32),
        in_group=intrinsics.aligned_zeros(words, np.int16),
        in_stretch=intrinsics.aligned_zeros(groups, np.int32),
        in_all=np.zeros(stretches, dtype=np.int32),
        counts=np.zeros(2, dtype=np.int64),
    )
    for name in window._fields if old else ():
        given = getattr(old, name)
        getattr(window, name)[: len(given)] = given
    return window


@functools.cache
def _compiled() -> tuple[Callable[..., None], ...]:
    import numba

    intrinsics.register()
    for function in (_bits_upto, _clear, _append):
        numba.extending.register_jitable(forceinline=True, **intrinsics.OPTIONS)(function)
    numba.extending.register_jitable(**intrinsics.OPTIONS)(_move_together)
    return tuple(intrinsics.compiled(function) for function in (_one_pass, _add_up, _move_together))


def _one_pass(w: _Window, pages: Any, distances: Any) -> None:
    """Write the distances of all accesses to `distances`.

    Each access takes the next position, and its bit in the bitmap; the page's earlier position loses its own.  So the
    bits behind a position count the pages touched since.  When no position is left they are moved together.
    """
    bits, position = w.counts[0], w.counts[1]
    for k in range(len(pages)):
        if k + AHEAD < len(pages):
            prefetch(w.last, pages[k + AHEAD])
        if position == len(w.page_at):
            w.counts[1] = position
            _move_together(w)
            bits = position = w.counts[0]
        page = pages[k]
        before, distance = int(w.last[page]), COLD
        if before != COLD:
            distance = bits - _bits_upto(w, before)
            _clear(w, before, position)
            bits -= 1
        _append(w, page, bits, position)
        bits += 1
        position += 1
        distances[k] = distance
    w.counts[0], w.counts[1] = bits, position


def _add_up(distances: Any, hits: Any) -> None:
    """Add 1 to hits[d + 1] for each distance d; np.add.at takes twice as long."""
    for k in range(len(distances)):
        hits[distances[k] + 1] += 1


def _bits_upto(w: _Window, position: int) -> int:
    """How many bits are set up to this position, itself included."""
    word = position >> WORD
    bits: int = w.in_all[position >> STRETCH] + w.in_stretch[position >> GROUP] + w.in_group[word]
    return bits + ones(w.bitmap[word] & (2 << (position & 31)) - 1)


def _clear(w: _Window, position: int, end: int) -> None:
    """Clear the bit; `end` is the next position, and no part behind it is counted yet."""
    w.bitmap[position >> WORD] ^= 1 << (position & 31)
    one_less_behind(w.in_group, position >> WORD)
    one_less_behind(w.in_stretch, position >> GROUP)
    for i in range((position >> STRETCH) + 1, (end >> STRETCH) + 1):
        w.in_all[i] -= 1


def _append(w: _Window, page: int, bits: int, position: int) -> None:
    """Give the page this position, the next one, and set its bit; `bits` are set before it."""
    if position & 31 == 0:  # a new word
        group, stretch = position >> GROUP, position >> STRETCH
        if position == stretch << STRETCH:
            w.in_all[stretch] = bits
        if position == group << GROUP:
            w.in_stretch[group] = bits - w.in_all[stretch]
        w.in_group[position >> WORD] = bits - w.in_all[stretch] - w.in_stretch[group]
    w.last[page], w.page_at[position] = position, page
    w.bitmap[position >> WORD] |= 1 << (position & 31)


def _move_together(w: _Window) -> None:
    """Give the pages that were touched the first positions, in their order."""
    live = 0
    for position in range(w.counts[1]):
        page, bit = w.page_at[position], 1 << (position & 31)
        if w.bitmap[position >> WORD] & bit:
            w.bitmap[position >> WORD] ^= bit
            _append(w, page, live, live)
            live += 1
    w.counts[:] = live
