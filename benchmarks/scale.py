"""A trace far larger than memory, made in parts as it is replayed: how much memory that takes, and how long.

Half of the accesses go to one of the pages at random, half to one of the first hundredth of them.  Memory is a tenth of
the pages.  What counts is the most memory that the process ever had (ru_maxrss), all of Python included.

    python benchmarks/scale.py [--accesses N] [--pages N] [--rules R]

Exit status 3 where it takes more than 1.5 GB.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from kernelnotes import refault

PART = 1_000_000
WANTED = 1.5e9  # bytes


def parts(accesses: int, pages: int) -> Iterator[npt.NDArray[np.int64]]:
    """The accesses; the first parts go through all pages once, so that there are as many as there should be."""
    rng = np.random.default_rng(1)
    for start in tqdm(range(0, accesses, PART), desc="parts", disable=None):
        size = min(PART, accesses - start)
        found = rng.integers(0, pages, size)
        hot = rng.random(size, dtype=np.float32) < 0.5
        found[hot] //= 100
        new = min(size, max(0, pages - start))
        found[:new] = np.arange(start, start + new)
        yield found


def main() -> int:
    """Replay, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accesses", type=int, default=1_000_000_000)
    parser.add_argument("--pages", type=int, default=50_000_000)
    parser.add_argument("--rules", default="proposal-2012")
    given = parser.parse_args()
    start = time.perf_counter()
    told = refault.replay(parts(given.accesses, given.pages), given.pages // 10, given.rules, keep="counts")
    seconds = time.perf_counter() - start
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{told.accesses:,} accesses to {told.faults - told.refaults:,} pages under {told.rules.name}")
    print(f"{seconds:.1f} s, {seconds / told.accesses * 1e9:.1f} ns an access, generating included")
    print(f"most memory: {most / 1e9:.2f} GB of {WANTED / 1e9:g}")
    return 0 if most <= WANTED else 3


if __name__ == "__main__":
    sys.exit(main())
