"""Traces of the textbook shapes that page replacement is judged by, each seeded: the same for the same arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from kernelnotes.errors import BadInput
from kernelnotes.traces.trace import MOST_PAGES, Trace


def _count(what: str, value: Any, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not least <= value <= MOST_PAGES:
        raise BadInput(f"{what} is {value!r}, expected an integer from {least} to {MOST_PAGES}")
    return int(value)


def _number(what: str, value: Any, most: int) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float, np.integer, np.floating))
        or not 0 <= value <= most
    ):
        raise BadInput(f"{what} is {value!r}, expected a number from 0 to {most}")
    return float(value)


def _random(seed: Any) -> np.random.Generator:
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise BadInput(f"seed is {seed!r}, expected an integer >= 0")
    return np.random.default_rng(int(seed))


def _laps(first: int, pages_name: str, pages: int, laps_name: str, laps: int) -> npt.NDArray[np.int64]:
    _count(f"{pages_name} * {laps_name}", _count(pages_name, pages) * _count(laps_name, laps))
    return np.tile(np.arange(first, first + pages), laps)


def cyclic(pages: int, laps: int) -> Trace:
    """`laps` times through `pages` pages in the same order: the worst case of LRU as soon as one page does not fit.

    >>> traces.cyclic(3, laps=2).pages.tolist()
    [0, 1, 2, 0, 1, 2]
    """
    return Trace.of(_laps(0, "pages", pages, "laps", laps), f"cyclic({pages} pages, {laps} laps)")


def zipf(pages: int, n: int, s: float = 1.0, seed: int = 0) -> Trace:
    """`n` independent accesses; the k-th most popular of `pages` pages has a chance proportional to 1 / k**s.

    Which page has which rank is random; s = 0 is uniform.

    >>> popular = traces.zipf(4000, 10_000, seed=1)
    >>> len(popular), popular.unique
    (10000, 2054)
    """
    return Trace.of(_zipf(pages, n, s, _random(seed)), f"zipf({pages} pages, {n} accesses, s={s:g}, seed {seed})")


def _zipf(pages: int, n: int, s: float, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    chance = np.cumsum(1.0 / np.arange(1, _count("pages", pages) + 1) ** _number("exponent s", s, 10))
    ranks = np.searchsorted(chance / chance[-1], rng.random(_count("n", n)), side="right")
    return rng.permutation(pages)[np.minimum(ranks, pages - 1)]


def uniform(pages: int, n: int, seed: int = 0) -> Trace:
    """`n` independent accesses, each of `pages` pages equally likely: nothing to learn from the past."""
    numbers = _random(seed).integers(0, _count("pages", pages), _count("n", n))
    return Trace.of(numbers, f"uniform({pages} pages, seed {seed})")


def scan_over_hot(hot: int, scan: int, n: int, share: float = 0.5, seed: int = 0) -> Trace:
    """A hot set under a scan: `n` accesses, of which `share` go through `scan` pages, each used once, as a backup does.

    The other accesses are uniform over `hot` pages, and so is what remains when the scan is through.
    """
    rng = _random(seed)
    numbers = rng.integers(0, _count("hot", hot), _count("n", n))
    scanning = rng.random(n) < _number("share", share, 1)
    position = np.cumsum(scanning) - 1
    scanning &= position < _count("scan", scan)
    numbers[scanning] = hot + position[scanning]
    return Trace.of(numbers, f"scan over hot({hot} hot, {scan} scanned, share {share:g}, seed {seed})")


def shift(old: int, new: int, laps: int = 4, passes: int = 8) -> Trace:
    """The working set shifts: `laps` times through `old` pages, then `passes` times through `new` other pages.

    With old = new = 85 % of memory this is the case that the cover letter of the proposal reports.

    >>> traces.shift(2, 3, laps=2, passes=1).pages.tolist()
    [0, 1, 0, 1, 2, 3, 4]
    """
    before = _laps(0, "old", old, "laps", laps)
    after = _laps(old, "new", new, "passes", passes)
    return Trace.of(np.concatenate([before, after]), f"shift({old} x {laps}, then {new} x {passes})")


def mix(loop: int, pages: int, n: int, s: float = 1.0, share: float = 0.5, seed: int = 0) -> Trace:
    """`n` accesses: with chance `share` the next page of a loop over `loop` pages, else Zipf(s) over `pages` others."""
    rng = _random(seed)
    looping = rng.random(_count("n", n)) < _number("share", share, 1)
    position = (np.cumsum(looping) - 1) % _count("loop", loop)
    numbers = np.where(looping, position, loop + _zipf(pages, n, s, rng))
    return Trace.of(numbers, f"mix(loop {loop}, zipf {pages}, s={s:g}, share {share:g}, seed {seed})")
