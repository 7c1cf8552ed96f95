"""Every record of the kernel's UAPI headers: our layout against the compiler's own debug information.

Each header below /usr/include that gcc accepts is compiled with -g at one width; every named struct and union that
DWARF then describes must have the same size, and each of its members must begin at the same bit, in
`kernelnotes.layout`, which reads the preprocessed source.  Prints what differs and what was refused; exit status 1 if a
number is wrong or more than 1 % of the records are refused.

    python benchmarks/uapi.py [--width 64|32] [--every N]      # N: only every N-th header
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile
from tqdm import tqdm

from kernelnotes import cdecl, layout
from kernelnotes.errors import BadInput

FOLDERS = ("linux", "asm", "asm-generic", "sound", "rdma", "scsi", "mtd", "misc", "video", "xen", "drm")
ROOTS = (Path("/usr/include"), Path("/usr/include/x86_64-linux-gnu"))
# Many of these headers do not stand alone; this is what programs include before them.
PRELUDE = "".join(
    f"#include <{name}.h>\n" for name in ("stddef", "stdint", "sys/types", "sys/socket", "netinet/in", "time")
)
ABIS = {"64": "x86-64", "32": "i386"}

Truth = dict[str, tuple[int, dict[str, int]]]  # {"struct x": (size in bytes, {member: first bit})}


def headers() -> list[str]:
    """The names of all UAPI headers, as an #include would name them."""
    found = (path.relative_to(root) for root in ROOTS for folder in FOLDERS for path in (root / folder).rglob("*.h"))
    return sorted({str(name) for name in found})


def gcc(width: str, source: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run gcc on `source` from standard input."""
    command = ["gcc", f"-m{width}", *options, "-xc", "-"]
    return subprocess.run(command, input=source, text=True, capture_output=True, check=False)


def members(die: Any, base: int = 0) -> Iterator[tuple[str, int]]:
    """Name and first bit of each member; those of unnamed records stand among them."""
    for child in die.iter_children():
        if child.tag != "DW_TAG_member":
            continue
        attributes = child.attributes
        if "DW_AT_data_bit_offset" in attributes:
            bit = base + attributes["DW_AT_data_bit_offset"].value
        elif "DW_AT_data_member_location" in attributes:
            bit = base + 8 * attributes["DW_AT_data_member_location"].value
        else:  # of a union
            bit = base
        if "DW_AT_name" in attributes:
            yield attributes["DW_AT_name"].value.decode(), bit
        else:
            yield from members(child.get_DIE_from_attribute("DW_AT_type"), bit)


def truth(path: Path) -> Truth:
    """What the debug information in an object file says of each named struct and union."""
    kinds = {"DW_TAG_structure_type": "struct", "DW_TAG_union_type": "union"}
    found: Truth = {}
    with path.open("rb") as file:
        for unit in ELFFile(file).get_dwarf_info().iter_CUs():
            for die in unit.iter_DIEs():
                if die.tag in kinds and {"DW_AT_byte_size", "DW_AT_name"} <= die.attributes.keys():
                    name = f"{kinds[die.tag]} {die.attributes['DW_AT_name'].value.decode()}"
                    found[name] = die.attributes["DW_AT_byte_size"].value, dict(members(die))
    return found


def differences(name: str, told: tuple[int, dict[str, int]], ours: layout.Layout) -> Iterator[str]:
    """What we say otherwise than the compiler."""
    size, bits = told
    if ours.size != size:
        yield f"{name}: size {ours.size}, gcc says {size}"
    placed = {member.name: member.bit_offset for member in ours.members}
    for member, bit in bits.items():
        if placed.get(member) != bit:
            yield f"{name}.{member}: bit {placed.get(member)}, gcc says {bit}"


def compare(width: str, every: int) -> tuple[Counter[str], list[str], list[str]]:
    """Counts, wrong numbers, refusals."""
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    refused: list[str] = []
    seen = set()
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder) / "header.o"
        for header in tqdm(headers()[::every], desc=f"-m{width}", unit="header", disable=None):
            source = f"{PRELUDE}#include <{header}>\n"
            options = ("-w", "-g", "-gdwarf-5", "-fno-eliminate-unused-debug-types", "-c", "-o", str(compiled))
            if gcc(width, source, *options).returncode:
                counts["headers that gcc refuses"] += 1
                continue
            counts["headers"] += 1
            told = truth(compiled)
            new = [name for name, it in told.items() if (name, it[0], *it[1].items()) not in seen]
            seen |= {(name, told[name][0], *told[name][1].items()) for name in new}
            try:
                records = cdecl.parse(gcc(width, source, "-E").stdout, filename=header)
            except BadInput as e:
                refused += [f"{header}: {name}: {e}" for name in new]
                continue
            for name in new:
                try:
                    found = list(differences(name, told[name], layout.layout(records[name], ABIS[width])))
                except (BadInput, KeyError) as e:
                    refused.append(f"{header}: {name}: {e!r}")
                    continue
                wrong += [f"{header}: {difference}" for difference in found]
                counts["wrong records" if found else "exact records"] += 1
    return counts, wrong, refused


def main() -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", choices=tuple(ABIS), action="append")
    parser.add_argument("--every", type=int, default=1)
    options = parser.parse_args()
    status = 0
    for width in options.width or ABIS:
        start = time.perf_counter()
        counts, wrong, refused = compare(width, options.every)
        for line in (*wrong, *refused):
            print(line)
        total = counts["exact records"] + counts["wrong records"] + len(refused)
        told = ", ".join(f"{count} {what}" for what, count in counts.items())
        took = time.perf_counter() - start
        print(f"{ABIS[width]}: {told}; {len(wrong)} wrong numbers, {len(refused)} records refused; {took:.0f} s")
        status |= int(bool(wrong) or len(refused) * 100 > total or not total)
    return status


if __name__ == "__main__":
    sys.exit(main())
