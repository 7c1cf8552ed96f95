"""The running kernel's BTF: how fast it is read, beside pahole, and whether it agrees with the UAPI headers.

    python benchmarks/btf.py [--sample 200] [--headers]

Prints the time of the index, of each struct after it, of the slowest on a new index (what a struct contains is read
with it), and what pahole needs for all of them and, a process each, for a sample; the ratio is pahole's time by ours.
`--headers` compares every struct that the UAPI headers also define (half a minute).  Exit status 1 where a difference
from the headers is not explained, else 3 where the index takes more than 1 s or one struct more than 50 ms.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import agreement

from kernelnotes import btf, layout
from kernelnotes.live import btf as live

WANTED_INDEX_S, WANTED_STRUCT_S = 1.0, 0.05
VMLINUX = live.FOLDER / "vmlinux"


def seconds(call: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def cold(data: bytes, name: str) -> float:
    """One struct on a new index, so that what it contains is read with it; the best of three."""
    return min(seconds(lambda types=types: types[name]) for types in (btf.read(data) for _ in range(3)))  # type: ignore[misc]


def largest(types: btf.Types, count: int) -> list[str]:
    """The names of the structs with the most members, those of members included."""
    return sorted(types, key=lambda name: sum(1 for _ in types[name].paths()), reverse=True)[:count]


def pahole(*arguments: str) -> None:
    """Run it, its output thrown away."""
    subprocess.run(["pahole", *arguments, VMLINUX], check=True, capture_output=True)


def headers(types: btf.Types) -> int:
    """Print how the kernel's records agree with those of the headers; returns the unexplained differences."""
    names = agreement.headers(set(types))
    start = time.perf_counter()
    found, refused = agreement.declared(names)
    reasons = {n: agreement.explain(layout.layout(one, "x86-64"), types.all(n)) for n, one in found.items()}
    took = time.perf_counter() - start
    print(f"headers: {len(names)} with names of the kernel's, {len(found)} records in common, {took:.0f} s")
    for reason, count in Counter(reasons.values()).most_common():
        which = ", ".join(sorted(name for name in reasons if reasons[name] == reason))
        told = "" if reason == agreement.EXACT else f": {which}"
        print(f"    {count} {agreement.REASONS.get(reason or '', reason or 'UNEXPLAINED')}{told}")
    for problem in refused:
        print(f"    refused: {problem}")
    return sum(reason is None for reason in reasons.values())


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=200, help="how many structs pahole is asked for one by one")
    parser.add_argument("--headers", action="store_true", help="also compare with the UAPI headers")
    options = parser.parse_args()
    data = VMLINUX.read_bytes()
    index = min(seconds(lambda: btf.read(data)) for _ in range(5))
    types = btf.read(data)
    names = list(types)
    print(f"index of {len(data) / 1e6:.1f} MB, {len(types):,} types, {len(names):,} names: {index:.3f} s")
    each = [seconds(lambda name=name: types[name]) for name in names]  # type: ignore[misc]
    print(f"each struct: median {1e3 * statistics.median(each):.2f} ms, all of them {sum(each):.1f} s")
    most = largest(types, min(options.sample, 40))
    gc.freeze()  # the thousands of layouts made so far are not the next one's to search
    slow, slowest = max((cold(data, name), name) for name in most)
    print(f"the slowest with nothing else read before: {slowest}, {1e3 * slow:.1f} ms")
    whole = min(seconds(pahole) for _ in range(3))
    print(f"pahole, all in one process: {whole:.2f} s, {whole / (index + sum(each)):.2f} of ours")
    sample = random.Random(1).sample(names, options.sample)
    asked = statistics.median(seconds(lambda name=name: pahole("-C", name.split()[1])) for name in sample)  # type: ignore[misc]
    ours = statistics.median(seconds(lambda name=name: btf.read(data)[name]) for name in sample)  # type: ignore[misc]
    print(
        f"one struct, index included: pahole {1e3 * asked:.0f} ms, ours {1e3 * ours:.0f} ms, ratio {asked / ours:.2f}"
    )
    print(f"one struct after the index: ratio {asked / statistics.median(each):.0f}")
    unexplained = headers(types) if options.headers else 0
    too_slow = index > WANTED_INDEX_S or slow > WANTED_STRUCT_S
    return 1 if unexplained else 3 * too_slow


if __name__ == "__main__":
    sys.exit(main())
