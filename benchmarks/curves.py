"""The whole LRU curve in one pass, `curves.miss_ratio`, beside one run of libcachesim's LRU for each of 20 sizes.

Both sides get the same trace, as in benchmarks/replay.py: libcachesim as oracleGeneral records in the page cache, at
its best hash table size of HASHPOWERS, ours as dense ids.  At all 20 sizes the miss counts must be equal.  Each side is
judged by its fastest turn.  A sample of one page in ten is timed too, and its distance from the exact curve printed.

    python benchmarks/curves.py [--accesses N] [--pages N] [--turns N]

Exit status 1 where a miss count differs, 3 where the curve takes more than 1/80 of the 20 runs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from replay import HASHPOWERS, libcachesim_lru, write_oracle_general
from tqdm import tqdm

from kernelnotes import curves, traces

SIZES = 20
WANTED = 80.0


def main() -> int:
    """Print the times and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accesses", type=int, default=10_000_000)
    parser.add_argument("--pages", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    equal, fast = True, True
    for trace in (
        traces.zipf(given.pages, given.accesses, s=1.0, seed=1),
        traces.mix(given.pages // 2, given.pages // 2, given.accesses, seed=1),
    ):
        right, ratio = measured(trace, given.turns)
        equal, fast = equal and right, fast and ratio >= WANTED
    return 0 if equal and fast else 3 if equal else 1


def measured(trace: traces.Trace, turns: int) -> tuple[bool, float]:
    """Print one trace's row; whether the miss counts are equal, and the ratio."""
    sizes = np.unique(np.linspace(1, trace.unique, SIZES + 1).astype(int)[1:])
    curves.miss_ratio(trace.pages[:1000], [1])  # compiled before the first turn
    exact = curves.miss_ratio(trace, sizes)["miss_ratio"]
    sampled = curves.miss_ratio(trace, sizes, sample=0.1)
    ours = min(_seconds(trace, sizes, 1.0) for _ in range(turns))
    tenth = min(_seconds(trace, sizes, 0.1) for _ in range(turns))
    theirs, equal = 0.0, True
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.oracleGeneral"
        write_oracle_general(trace, path)
        for size in tqdm(sizes, desc="libcachesim", disable=None):
            runs = [libcachesim_lru(path, int(size), power) for power in HASHPOWERS for _ in range(turns)]
            theirs += min(seconds for seconds, _ in runs)
            equal &= round(runs[0][1] * len(trace)) == round(exact[size] * len(trace))
    off = (sampled["miss_ratio"] - exact).abs()
    print(f"{trace.name}: {len(trace):,} accesses to {trace.unique:,} pages")
    print(f"  the curve, exact       {ours:8.3f} s   ratio {theirs / ours:.1f} of {WANTED:g}")
    print(f"  {len(sizes)} runs of libcachesim {theirs:8.3f} s   miss counts equal: {equal}")
    print(f"  one page in ten        {tenth:8.3f} s   off by {off.mean():.4f} in the mean, {off.max():.4f} at most")
    return equal, theirs / ours


def _seconds(trace: traces.Trace, sizes: np.ndarray, sample: float) -> float:
    start = time.perf_counter()
    curves.miss_ratio(trace, sizes, sample)
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
