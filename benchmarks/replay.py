"""Accesses per second of `refault.replay` against libcachesim's LRU, on the same trace in one run.

Both sides count misses only.  libcachesim reads its fastest format, oracleGeneral, from a file in the page cache, at
each hash table size in HASHPOWERS; the best one counts.  The sides take turns, and each is judged by its fastest turn,
because other work on the machine only ever makes a turn slower.  The miss counts of the two LRUs must be equal.

Not equal: libcachesim reads 24-byte records and hashes 64-bit ids within its time; ours gets dense 32-bit ids, and
making them dense, once per trace, is not timed.

    python benchmarks/replay.py [--accesses N] [--pages N] [--turns N]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import libcachesim
import numpy as np
from tqdm import tqdm

from kernelnotes import refault, traces

HASHPOWERS = (16, 18, 20, 24)
OURS = ("lru", "balanced-2012", "proposal-2012", "fifo")
WANTED = {"lru": 5.0, "proposal-2012": 5.0}  # ratio to libcachesim's LRU that must be reached


def write_oracle_general(trace: traces.Trace, path: Path) -> None:
    """The trace as libCacheSim's oracleGeneral records: clock u32, object id u64, size u32, next access i64."""
    records = np.zeros(len(trace), dtype=[("clock", "<u4"), ("id", "<u8"), ("size", "<u4"), ("next", "<i8")])
    records["id"], records["size"], records["next"] = trace.pages.astype(np.uint64) + 1, 1, -1
    records.tofile(path)


def libcachesim_lru(path: Path, memory: int, hashpower: int) -> tuple[float, float]:
    """Seconds and miss ratio of one run of libcachesim's LRU."""
    parameters = libcachesim.ReaderInitParam(ignore_obj_size=True)
    reader = libcachesim.TraceReader(str(path), libcachesim.TraceType.ORACLE_GENERAL_TRACE, parameters)
    cache = libcachesim.LRU(memory, hashpower=hashpower)
    start = time.perf_counter()
    miss_ratio, _ = cache.process_trace(reader)
    return time.perf_counter() - start, miss_ratio


def ours(trace: traces.Trace, memory: int, rules: str) -> tuple[float, float]:
    """Seconds and miss ratio of one replay."""
    start = time.perf_counter()
    result = refault.replay(trace, memory, rules, keep="counts")
    return time.perf_counter() - start, result.miss_ratio


def measure(trace: traces.Trace, memory: int, path: Path, turns: int) -> dict[str, tuple[float, float]]:
    """Per side, its fastest time in seconds and its miss ratio; the sides take turns."""
    sides: dict[str, Callable[[], tuple[float, float]]] = {
        f"libcachesim LRU, hashpower {power}": (lambda power=power: libcachesim_lru(path, memory, power))
        for power in HASHPOWERS
    } | {rules: (lambda rules=rules: ours(trace, memory, rules)) for rules in OURS}
    refault.replay(trace.pages[:1000], 10, keep="counts")  # compile before the first turn
    best: dict[str, tuple[float, float]] = {}
    for _ in tqdm(range(turns), desc="turns", disable=None):
        for side, run in sides.items():
            best[side] = min(best.get(side, (float("inf"), 0.0)), run())
    return best


def main() -> int:
    """Print a table and the ratios; exit status 1 if a wanted ratio is missed or the LRUs disagree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accesses", type=int, default=10_000_000)
    parser.add_argument("--pages", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    trace = traces.zipf(options.pages, options.accesses, s=1.0, seed=1)
    memory = max(1, trace.unique // 10)
    print(f"{trace.name}: {len(trace):,} accesses to {trace.unique:,} pages, memory {memory:,} pages, one thread")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.oracleGeneral"
        write_oracle_general(trace, path)
        best = measure(trace, memory, path, options.turns)
    peers = {side: result for side, result in best.items() if side.startswith("libcachesim")}
    peer = min(peers, key=lambda side: peers[side][0])
    for side, (seconds, miss_ratio) in best.items():
        rate = f"{len(trace) / seconds / 1e6:6.1f} M accesses/s"
        ratio = f"{best[peer][0] / seconds:5.1f}x {peer}" if side not in peers else ""
        print(f"{side:32} {seconds / len(trace) * 1e9:7.1f} ns  {rate}  miss ratio {miss_ratio:.6f}  {ratio}")
    wrong = [side for side, ratio in WANTED.items() if best[peer][0] / best[side][0] < ratio]
    equal = round(best["lru"][1] * len(trace)) == round(best[peer][1] * len(trace))
    print(f"LRU miss counts equal: {equal}; wanted ratios missed: {', '.join(wrong) or 'none'}")
    return int(bool(wrong) or not equal)


if __name__ == "__main__":
    sys.exit(main())
