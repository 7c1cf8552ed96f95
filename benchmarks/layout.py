"""Random records against compilers at full count, and the speed of the layout engine.

    python benchmarks/layout.py [--records 4000] [--seed 2026] [--abi NAME ...]

Prints, per ABI and compiler, how many of the records differ in size, alignment or the place of any member (wanted: 0),
and records per second of `layout.place` alone, each record, nested ones included, laid out for the first time.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import records
import test_layout
from tqdm import tqdm

from kernelnotes import cdecl
from kernelnotes.abi import ABIS
from kernelnotes.ctype import Aligned, Array, Record
from kernelnotes.layout.place import place

WANTED_PER_SECOND = 50_000


def main() -> int:
    """Exit status 1 where a record differs or the engine is too slow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--abi", action="append", choices=test_layout.CLANG)
    options = parser.parse_args()
    wrong = 0
    for abi in tqdm(options.abi or test_layout.CLANG, disable=None):
        made = test_layout.for_clang(abi, options.seed, options.records)
        asked = {"clang": lambda abi=abi, made=made: records.by_clang(made, test_layout.CLANG[abi])}
        for flag, ours in (("-m64", "x86-64"), ("-m32", "i386")):
            if abi == ours:
                asked[f"gcc {flag}"] = lambda made=made, flag=flag: records.by_gcc(made, ["gcc", flag])
        for compiler, answers in asked.items():
            differing = len(test_layout.differing(made, abi, answers()))
            wrong += differing
            members = sum(len(m.members) for m in made)
            print(f"{abi:<12} {compiler:<10} {len(made)} records, {members} members: {differing} differ", flush=True)
    speed = per_second(options)
    print(f"layout engine: {speed:,.0f} records/s, wanted {WANTED_PER_SECOND:,}")
    return int(wrong > 0 or speed < WANTED_PER_SECOND)


def per_second(options: argparse.Namespace) -> float:
    """Records per second, nested ones included: the best turn of three ABIs, nothing laid out before."""
    made = records.generate(options.seed, options.records)
    ours = [record for name, record in cdecl.parse(records.source(made)).items() if " S" in name]
    count = len(nested := list(every(ours))) or 1
    assert len({id(record) for record in nested}) == count
    best = 0.0
    gc.collect()
    gc.freeze()  # what the parser left behind is not the engine's to search
    for abi in ("x86-64", "i386", "s390x"):
        start = time.perf_counter()
        for record in ours:
            place(record, ABIS[abi])
        best = max(best, count / (time.perf_counter() - start))
    return best


def every(found: list[Record]) -> Iterator[Record]:
    """These records and all that they contain, each once."""
    seen: set[int] = set()
    todo: list[object] = list(found)
    while todo:
        ctype = todo.pop()
        while isinstance(ctype, Array | Aligned):
            ctype = ctype.of
        if isinstance(ctype, Record) and id(ctype) not in seen:
            seen.add(id(ctype))
            yield ctype
            todo += [member.type for member in ctype.members]


if __name__ == "__main__":
    sys.exit(main())
