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
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kernelnotes.errors import BadInput
from kernelnotes.traces import Trace, TraceLike, as_trace

COLD = -1  # the distance of a page's first access: no memory could have held it
PARTS = 8  # of a sample, each with a curve of its own: how far they differ tells the error
WORD, BLOCK = 32, 512  # positions per word of the bitmap, and per counter of the tree above it


def reuse_distances(trace: TraceLike) -> npt.NDArray[np.int64]:
    """For each access how many other pages were touched since the last one to its page; COLD for the first.

    The result has shape (accesses,).  Takes memory in proportion to the distinct pages, beside the result, and time in
    proportion to accesses times the logarithm of the distinct pages.  Raises BadInput for what is no trace.
    """
    given = as_trace(trace)
    return _distances(given.pages, given.unique)


def miss_ratio(trace: TraceLike, sizes: Iterable[int] | None = None, sample: float = 1.0) -> pd.DataFrame:
    """The share of accesses that miss in an LRU memory of each size, in pages; first accesses are misses.

    `sizes` are by default all at which the curve changes.  With `sample` below 1 that share of the *pages* is looked
    at, and the column `error` has the standard error of the estimate.  Raises BadInput for sizes below 1, a sample that
    is not above 0 and at most 1, and one in which fewer than PARTS pages are left.
    """
    given = as_trace(trace)
    if not 0 < sample <= 1:
        raise BadInput(f"miss_ratio: a sample of {sample}, expected a share above 0 and at most 1")
    wanted = None if sizes is None else _sizes(sizes)
    if sample == 1:
        misses = _misses(_distances(given.pages, given.unique))
        at = np.arange(1, len(misses)) if wanted is None else wanted
        frame = pd.DataFrame({"miss_ratio": misses[np.minimum(at, len(misses) - 1)] / len(given)}, index=at)
        if wanted is None:
            frame = frame[frame["miss_ratio"].diff() != 0]
    else:
        frame = _estimated(given, wanted, sample)
    return frame.rename_axis("memory")


def _sizes(sizes: Iterable[int]) -> npt.NDArray[np.int64]:
    found = np.asarray(list(sizes))
    if found.ndim != 1 or found.dtype.kind not in "iu" or len(found) == 0 or found.min() < 1:
        raise BadInput("miss_ratio: expected at least one size, each a number of pages from 1 up")
    return found.astype(np.int64)


def _misses(distances: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    # [m]: how many accesses miss in a memory of m pages, from m = 0 up to where only first accesses do.
    reused = distances[distances != COLD]
    hits = np.bincount(reused, minlength=1)
    return len(distances) - np.concatenate([[0], np.cumsum(hits)])


# ------------------------------------------------------------------------------------- sampling


def _estimated(trace: Trace, sizes: npt.NDArray[np.int64] | None, sample: float) -> pd.DataFrame:
    # A page is in the sample by a hash of its number, so with all its accesses: distances within it are, on average,
    # `sample` times those of the whole.  Each part of the pages gives a curve; they are as good as independent.
    hashed = _hash(np.arange(trace.unique, dtype=np.uint64))
    part = np.where(hashed < int(sample * 2**64), hashed % np.uint64(PARTS), PARTS).astype(np.int64)
    if np.bincount(part, minlength=PARTS)[:PARTS].min() == 0:
        raise BadInput(
            f"miss_ratio: a sample of {sample} of {trace.unique} pages is too small, expected some {4 * PARTS} pages"
        )
    whole = _scaled(trace, part < PARTS, sample)
    at = np.unique(np.concatenate([[1], np.ceil(whole[0]).astype(np.int64) + 1])) if sizes is None else sizes
    curves = [_at(_scaled(trace, part == k, sample / PARTS), at) for k in range(PARTS)]
    error = np.std(curves, axis=0, ddof=1) / np.sqrt(PARTS)
    return pd.DataFrame({"miss_ratio": _at(whole, at), "error": error}, index=at)


def _hash(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    # The finalizer of splitmix64 (Steele, Lea and Flood 2014): neighbouring numbers come out far apart.
    mixed = numbers + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _scaled(trace: Trace, chosen: npt.NDArray[np.bool_], share: float) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Distances that occur, scaled to the whole trace, ascending; and the share of accesses that hit above each."""
    pages = trace.pages[chosen[trace.pages]]
    numbers = np.cumsum(chosen) - 1
    distances = _distances(numbers[pages].astype(np.int32), int(chosen.sum()))
    found, counts = np.unique(distances[distances != COLD], return_counts=True)
    expected = share * len(trace)
    # As many accesses as there should be, the missing ones at distance 0: a hot page, in or out of the sample, is the
    # main error otherwise (SHARDS-adj).
    hits = np.cumsum(counts) + expected - len(pages)
    return found / share, np.clip(hits / expected, 0, 1)


def _at(curve: tuple[npt.NDArray[Any], npt.NDArray[Any]], sizes: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    distances, hits = curve
    place = np.searchsorted(distances, sizes)  # how many distances are below the size
    return 1 - np.concatenate([[0.0], hits])[place]


# ------------------------------------------------------------------------------------- one pass


def _distances(pages: npt.NDArray[np.int32], unique: int) -> npt.NDArray[np.int64]:
    window = -(-2 * max(unique, BLOCK) // BLOCK) * BLOCK
    distances = np.empty(len(pages), np.int64)
    bitmap, tree = np.zeros(window // WORD, np.int64), np.zeros(window // BLOCK + 1, np.int64)
    _pass()(pages, np.full(unique, COLD, np.int64), np.empty(window, np.int64), bitmap, tree, distances)
    return distances


@functools.cache
def _pass() -> Callable[..., None]:
    if not importlib.util.find_spec("numba"):
        return one_pass
    import numba

    for function in (ones, move_together):
        numba.extending.register_jitable(function)
    try:
        compiled: Callable[..., None] = numba.njit(cache=True)(one_pass)
    except RuntimeError:  # there is no folder that numba could write to
        compiled = numba.njit(one_pass)
    return compiled


def one_pass(pages: Any, last: Any, page_at: Any, bitmap: Any, tree: Any, distances: Any) -> None:
    """The distances of all accesses.

    Each access takes the next position of a window, and its bit in the bitmap; the page's earlier position loses its
    own.  So bits are where pages were touched last, and the bits behind a position count the pages since.  `tree` is a
    Fenwick tree over blocks of the bitmap.  When the window is full the positions are moved together.
    """
    window, live, now = len(page_at), 0, 0
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
