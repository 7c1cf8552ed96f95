"""The census: every record of the UAPI headers that i386 and x86-64 see differently, timed, and checked by gcc.

    python benchmarks/census.py [--every N] [--by gcc|python ...] [--record FILE]

All headers are read twice, with gcc as the preprocessor and in pure Python, each in a process of its own: time, peak
memory, and whether both find the same.  Then gcc compiles, at both widths, `_Static_assert`s for the size of every
record and for offset and size of every member that C can name, of those that differ and of those that do not: nothing
missed, nothing invented.  And every mend is typed in, and compiled at both widths: they must then agree.
Exit status 1 where an assertion or a mend fails or the two disagree, else 3 where a target of time or memory is missed.
`--record` writes the hazards as the package's recording.
"""

from __future__ import annotations

import argparse
import gzip
import json
import resource
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import mending
import uapi
from tqdm import tqdm

from kernelnotes import headers, layout
from kernelnotes.ctype import Array, Record
from kernelnotes.errors import BadInput
from kernelnotes.layout.hazards import Pair
from kernelnotes.live.cpp import Cpp

WIDTHS = {"i386": "32", "x86-64": "64"}
SECONDS = {"gcc": 20, "python": 45}
MEGABYTES = 600


def files(every: int) -> list[Path]:
    """The paths of all UAPI headers, or of every N-th."""
    return [next(r / h for r in uapi.ROOTS if (r / h).exists()) for h in uapi.headers()[::every]]


def read(by: str, every: int) -> headers.Found:
    """The headers as `by` preprocesses them."""
    progress = tqdm(files(every), desc=by, unit="header", disable=None, leave=False)
    if by == "gcc":
        return headers.examine(progress, *WIDTHS, cpp=lambda abi: Cpp(f"gcc -m{WIDTHS[abi.name]}"))
    return headers.examine(progress, *WIDTHS, include=map(str, uapi.ROOTS))


def measured(by: str, every: int) -> dict[str, Any]:
    """Time, memory and result of a process of its own."""
    command = [sys.executable, __file__, "--child", by, "--every", str(every)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def child(by: str, every: int) -> None:
    """Print what `measured` returns."""
    start = time.perf_counter()
    found = read(by, every)
    seconds = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    told = {"seconds": seconds, "megabytes": memory, "headers": len(found.records), "records": len(found.pairs)}
    print(json.dumps(told | {"refused": found.refused, "hazards": [h._asdict() for h in found.hazards]}))


def assertions(pair: Pair, abi: str) -> list[str]:
    """C text that fails to compile unless the record has our layout; none where the ABI cannot have the record."""
    record: Record = pair.here if abi == "i386" else pair.there
    try:
        ours = layout.layout(record, abi)
    except BadInput:
        return []
    text = [f'_Static_assert(sizeof({pair.name}) == {ours.size}, "sizeof {pair.name}");']
    for member in ours.members:
        if member.bit_width is not None:
            continue
        at = f"{pair.name}.{member.name}"
        text.append(f'_Static_assert(__builtin_offsetof({pair.name}, {member.name}) == {member.offset}, "{at}");')
        if not (isinstance(member.type, Array) and member.type.count is None):
            text.append(f'_Static_assert(sizeof((({pair.name} *)0)->{member.name}) == {member.size}, "size {at}");')
    return text


def failures(path: str, found: list[Pair], abi: str) -> tuple[int, list[str]]:
    """How many assertions gcc has seen about the records of one header, and what it says against them."""
    text = [line for pair in found for line in assertions(pair, abi)]
    for before in ("", headers.BEFORE):
        source = "\n".join([before, f'#include "{path}"', *text])
        done = uapi.gcc(WIDTHS[abi], source, "-w", "-fsyntax-only", "-fmax-errors=0")
        if done.returncode == 0:
            return len(text), []
    return len(text), [f"{path}, {abi}: {line}" for line in done.stderr.splitlines() if "error" in line]


def check(found: headers.Found) -> tuple[int, list[str]]:
    """All assertions about all records, compiled behind the header that brought them: how many, and which failed."""
    jobs = [(path, pairs, abi) for path, pairs in found.records.items() if pairs for abi in WIDTHS]
    with ThreadPoolExecutor(2) as pool:
        progress = tqdm(pool.map(lambda job: failures(*job), jobs), total=len(jobs), desc="asserted", disable=None)
        results = list(progress)
    return sum(count for count, _ in results), [line for _, said in results for line in said]


def check_mends(found: headers.Found) -> tuple[int, list[str]]:
    """All mends of records, typed in and compiled: how many, and which leave a difference or are no C."""
    _, trials = mending.proposed(found.pairs)
    try:
        differ = mending.disagreements(trials)
    except mending.NoC as e:
        return len(trials), [str(e)]
    return len(trials), [f"{label}: {here}, {there}" for label, here, there in differ]


def by_record(hazards: list[dict[str, Any]]) -> dict[tuple[str, str], tuple[Any, ...]]:
    """What must be equal however the headers were preprocessed; names of the compiler's own headers are left out."""
    return {
        (h["record"], h["header"]): (h["kind"], h["sizes"], h["members"], h["numbers"])
        for h in hazards
        if not h["header"].startswith("/usr/lib")
    }


def record(path: Path, hazards: list[dict[str, Any]]) -> None:
    """Write the recording that comes with the package, its headers named as an #include would name them."""
    query = ["dpkg-query", "-W", "-f", "${Version}", "linux-libc-dev"]
    version = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    roots = sorted(map(str, uapi.ROOTS), key=len, reverse=True)
    for hazard in hazards:
        root = next(root for root in roots if hazard["header"].startswith(root))
        hazard["header"] = hazard["header"].removeprefix(f"{root}/")
    told = {
        "kernel": f"Linux {version.partition('-')[0]}, the headers of Debian's linux-libc-dev",
        "command": "kernelnotes hazards --cpp gcc --json, on every header of the package",
        "date": time.strftime("%Y-%m-%d"),
        "rows": hazards,
    }
    path.write_bytes(gzip.compress(json.dumps(told).encode(), mtime=0))


def main() -> int:
    """Measure, check and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--by", choices=list(SECONDS), action="append")
    parser.add_argument("--record", type=Path)
    parser.add_argument("--child", choices=list(SECONDS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.every)
        return 0
    wrong, missed, results = False, False, {}
    for by in options.by or SECONDS:
        one = results[by] = measured(by, options.every)
        print(
            f"{by}: {one['headers']} headers, {one['records']} records, {len(one['refused'])} headers refused; "
            f"{one['seconds']:.1f} s (wanted {SECONDS[by]}), {one['megabytes']} MB (wanted {MEGABYTES})"
        )
        missed |= one["seconds"] > SECONDS[by] or one["megabytes"] > MEGABYTES
    for problem in one["refused"].values():
        print(f"refused: {problem}")
    for kind, count in Counter(hazard["kind"] for hazard in one["hazards"]).most_common():
        print(f"{count:>5} {kind}")
    if len(results) == 2:
        same = by_record(results["gcc"]["hazards"]) == by_record(results["python"]["hazards"])
        print(f"gcc and pure Python find the same: {same}")
        wrong = not same
    found = read("gcc", options.every)
    count, failed = check(found)
    print(*failed, f"{count} static assertions at both widths: {len(failed)} failed", sep="\n")
    mends, still_differ = check_mends(found)
    print(*still_differ, f"{mends} mends typed in at both widths: {len(still_differ)} failed", sep="\n")
    if options.record:
        record(options.record, one["hazards"])
    return 1 if wrong or failed or still_differ or not count else 3 * missed


if __name__ == "__main__":
    sys.exit(main())
