"""Random records against compilers at full count, the speed of the layout engine, and our peers on the same headers.

    python benchmarks/layout.py [--records 4000] [--seed 2026] [--abi NAME ...] [--headers 12] [--turns 3]

Prints, per ABI and compiler, how many of the records differ in size, alignment or the place of any member (wanted: 0),
and records per second of `layout.place` alone, each record, nested ones included, laid out for the first time.

Then pahole, dissect.cstruct and libclang beside us: each header of HEADERS at two ABIs, preprocessed by gcc beforehand.
Every side gets that text, and every side but one the very same:

    kernelnotes      text -> every record laid out, in this process; or `kernelnotes layout FILE`, a process each time
    libclang         text -> the size of each record and the place of each of its members, in this process
    dissect.cstruct  text without attributes, function pointers and what else it cannot read (see `plain`) -> every
                     struct loaded with align=True and pointers of the ABI's size, in this process
    pahole           prints what `gcc -g` left in an object; with and without the time of that gcc

Speed without the right answer is worth nothing, so each line says of how many of the records, of all those that gcc's
debug information names, the side tells a size, and of how many that of gcc.
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import records
import test_layout
import uapi
from clang import cindex
from dissect.cstruct import cstruct
from tqdm import tqdm

from kernelnotes import cdecl, layout
from kernelnotes.abi import ABIS
from kernelnotes.ctype import Aligned, Array, Record
from kernelnotes.layout.place import place

WANTED_PER_SECOND = 50_000
# Headers that dissect.cstruct can be made to read.
HEADERS = """linux/auto_fs.h linux/fuse.h linux/vfio.h linux/io_uring.h linux/firewire-cdev.h linux/acrn.h
linux/pkt_cls.h linux/rtnetlink.h linux/usb/ch9.h linux/openvswitch.h linux/virtio_snd.h rdma/mlx4-abi.h""".split()  # noqa: SIM905
TARGETS = {"x86-64": "x86_64-linux-gnu", "i386": "i386-linux-gnu"}


def main() -> int:
    """Exit status 1 where a record differs, else 3 where the engine is too slow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--abi", action="append", choices=test_layout.CLANG)
    parser.add_argument("--headers", type=int, default=len(HEADERS))
    parser.add_argument("--turns", type=int, default=3)
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
    inexact = peers(HEADERS[: options.headers], options.turns)
    return 1 if wrong or inexact else 3 * (speed < WANTED_PER_SECOND)


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


# ------------------------------------------------------------------------------------- peers


class Case(NamedTuple):
    """One header at one ABI: its text, the file with it, the object gcc made of it, and what gcc says: {tag: bytes}."""

    name: str
    abi: str
    text: str
    file: Path
    compiled: Path
    sizes: dict[str, int]


def case(header: str, width: str, folder: Path) -> Case:
    """Preprocess and compile."""
    name = f"{header.replace('/', '-')}-{width}"
    text = uapi.gcc(width, f"#include <{header}>\n", "-E", "-P").stdout
    made = Case(name, uapi.ABIS[width], text, folder / f"{name}.c", folder / f"{name}.o", {})
    made.file.write_text(text)
    compile_with_debug_information(made)
    told = uapi.truth(made.compiled, set())
    return made._replace(sizes={name.split()[1]: size for name, (size, _) in told.items()})


def compile_with_debug_information(made: Case) -> None:
    """Of all types, used or not."""
    width = next(width for width, abi in uapi.ABIS.items() if abi == made.abi)
    options = ("-w", "-g", "-gdwarf-5", "-fno-eliminate-unused-debug-types", "-c", "-o", str(made.compiled))
    uapi.gcc(width, made.text, *options).check_returncode()


def ours(made: Case) -> dict[str, int]:
    """Sizes by tag, as from every side."""
    found = cdecl.parse(made.text)
    return {name.split()[-1]: layout.layout(record, made.abi).size for name, record in found.items()}


def ours_cold(made: Case) -> dict[str, int]:
    """A process."""
    command = [Path(sys.executable).parent / "kernelnotes", "layout", "--json", "--abi", made.abi, made.file]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return {one["record"].split()[-1]: one["size"] for one in json.loads(ran.stdout)}


def by_libclang(made: Case) -> dict[str, int]:
    """Also asks for the place of each member."""
    options = ["-target", TARGETS[made.abi], "-w"]
    unit = cindex.Index.create().parse("source.c", args=options, unsaved_files=[("source.c", made.text)])
    sizes: dict[str, int] = {}
    todo = list(unit.cursor.get_children())
    while todo:
        cursor = todo.pop()
        if cursor.kind in (cindex.CursorKind.STRUCT_DECL, cindex.CursorKind.UNION_DECL) and cursor.is_definition():
            sizes[cursor.spelling] = cursor.type.get_size()
            for field in cursor.type.get_fields():
                field.get_field_offsetof()
            todo += cursor.get_children()
    return sizes


def plain(text: str) -> str:
    """C as dissect.cstruct reads it; a packed record is one no more, since it has no word for that."""
    text = re.sub(r"__attribute__\s*\(\((?:[^()]|\([^()]*\))*\)\)|__extension__", "", text)
    text = re.sub(r"\b__signed(?:__)?\b", "signed", text)
    text = re.sub(r"\b(short|long|long long)( unsigned| signed)? int\b", r"\1\2", text)
    text = re.sub(r"\b(short|long|long long) (unsigned|signed)\b", r"\2 \1", text)
    text = re.sub(r"\bunsigned\b(?! *(?:char|short|int|long|__int128))", "unsigned int", text)
    text = re.sub(
        r"static (?:__)?inline[^;{]*\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}|^extern[^;{]*;", "", text, flags=re.M
    )
    text = re.sub(r"\btypedef [\w *]*\(\s*\*\s*(\w+)\)\s*\([^;]*\);", r"typedef void *\1;", text)
    known = cstruct().typedefs  # names that it has itself it does not accept
    return re.sub(r"\btypedef [\w ]*?(\w+);", lambda found: "" if found[1] in known else found[0], text)


def by_dissect(made: Case, text: str) -> dict[str, int]:
    """`text` from `plain`."""
    read = cstruct(pointer=f"uint{ABIS[made.abi].pointer_bits}")
    read.load(text, align=True)
    found = {name: getattr(read, name) for name in made.sizes if name in read.typedefs}
    return {name: len(struct) for name, struct in found.items() if struct.size is not None}


def by_pahole(made: Case, *options: str) -> str:
    """What it prints."""
    return subprocess.run(["pahole", *options, made.compiled], capture_output=True, text=True, check=True).stdout


def by_gcc_and_pahole(made: Case) -> str:
    """A compiler and pahole."""
    compile_with_debug_information(made)
    return by_pahole(made)


def peers(headers: list[str], turns: int) -> int:
    """Print a line per side; how many records of ours have not the size that gcc gives them."""
    with tempfile.TemporaryDirectory() as folder:
        cases = [case(header, width, Path(folder)) for header in headers for width in uapi.ABIS]
        texts = {made.name: plain(made.text) for made in cases}
        listed = {made.name: by_pahole(made, "-s") for made in cases}
        pahole = {name: {row.split()[0]: int(row.split()[1]) for row in listed[name].splitlines()} for name in listed}
        total = sum(len(made.sizes) for made in cases)
        print(f"peers: {len(headers)} headers at {len(uapi.ABIS)} ABIs, {total} records, best of {turns} turns")
        inside = line("kernelnotes", cases, ours, turns)
        line("libclang", cases, by_libclang, turns, inside.seconds)
        line("dissect.cstruct", cases, lambda made: by_dissect(made, texts[made.name]), turns, inside.seconds)
        cold = line("kernelnotes layout FILE", cases, ours_cold, turns)
        line("gcc -g, pahole", cases, lambda made: by_gcc_and_pahole(made) and pahole[made.name], turns, cold.seconds)
        line("pahole alone", cases, lambda made: by_pahole(made) and pahole[made.name], turns, cold.seconds)
    return 2 * total - inside.exact - cold.exact


class Line(NamedTuple):
    """What `line` printed."""

    seconds: float
    exact: int


def line(
    side: str, cases: list[Case], sizes: Callable[[Case], dict[str, int]], turns: int, ours: float | None = None
) -> Line:
    """Run one side on every case, print its time, its ratio to ours, and how much of it is right."""
    seconds, told, exact = 0.0, 0, 0
    for made in cases:
        times = []
        for _ in range(turns):
            start = time.perf_counter()
            found = sizes(made)
            times.append(time.perf_counter() - start)
        seconds += min(times)
        told += len(found.keys() & made.sizes.keys())
        exact += len(found.items() & made.sizes.items())
    total = sum(len(made.sizes) for made in cases)
    ratio = f", {seconds / ours:.3f} x the time of kernelnotes" if ours else ""
    each = 1000 * seconds / len(cases)
    print(f"  {side:<24}{each:8.1f} ms a header, {told:>4} told, {exact:>4} of {total} exact{ratio}", flush=True)
    return Line(seconds, exact)


if __name__ == "__main__":
    sys.exit(main())
