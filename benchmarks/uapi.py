"""Every record of the kernel's UAPI headers: our layout against the compiler's own debug information.

Each header below /usr/include that gcc accepts is compiled with -g at one width; every named struct and union that
DWARF then describes must have the same size, and each of its members must begin at the same bit and have the same
size, in `kernelnotes.layout`, which reads the preprocessed source.  Prints what differs and what was refused; exit
status 1 if a number is wrong or more than 1 % of the records are refused.

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
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import installed
from elftools.elf.elffile import ELFFile
from tqdm import tqdm

from kernelnotes import cdecl, layout
from kernelnotes.errors import BadInput
from kernelnotes.headers import BEFORE

ROOTS = installed.ROOTS
ABIS = {"64": "x86-64", "32": "i386"}

Told = tuple[int, dict[str, tuple[int, int]]]  # size in bytes; {member: (first bit, size in bytes, 0 unknown)}
Truth = dict[str, Told]  # by "struct x"


def headers() -> list[str]:
    """The names of all UAPI headers, as an #include would name them."""
    return list(installed.headers())


def gcc(width: str, source: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run gcc on `source` from standard input."""
    command = ["gcc", f"-m{width}", *options, "-xc", "-"]
    return subprocess.run(command, input=source, text=True, capture_output=True, check=False)


def members(die: Any, base: int = 0) -> Iterator[tuple[str, tuple[int, int]]]:
    """Name, first bit and size in bytes of each member; those of unnamed records stand among them."""
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
            yield attributes["DW_AT_name"].value.decode(), (bit, size(child.get_DIE_from_attribute("DW_AT_type")))
        else:
            yield from members(child.get_DIE_from_attribute("DW_AT_type"), bit)


def size(die: Any) -> int:
    """Bytes of a type, behind typedefs and qualifiers; 0 where DWARF does not say, as for an array without bound."""
    while "DW_AT_byte_size" not in die.attributes:
        if "DW_AT_type" not in die.attributes:
            return 0
        if die.tag == "DW_TAG_array_type":
            ranges = [child.attributes for child in die.iter_children() if child.tag == "DW_TAG_subrange_type"]
            count = 1
            for bounds in ranges:
                if "DW_AT_count" in bounds:
                    count *= bounds["DW_AT_count"].value
                else:
                    count *= bounds["DW_AT_upper_bound"].value + 1 if "DW_AT_upper_bound" in bounds else 0
            return count * size(die.get_DIE_from_attribute("DW_AT_type"))
        die = die.get_DIE_from_attribute("DW_AT_type")
    return die.attributes["DW_AT_byte_size"].value


KINDS = {"DW_TAG_structure_type": "struct", "DW_TAG_union_type": "union"}


def truth(path: Path, seen: set[tuple[object, ...]]) -> Truth:
    """What the debug information in an object file says of each named struct and union that was not seen before.

    Seen is what has the same name, size, file and line: only the line of the declaration is looked at.
    """
    found: Truth = {}
    with path.open("rb") as file:
        for unit in ELFFile(file).get_dwarf_info().iter_CUs():
            files = None
            for die in unit.get_top_DIE().iter_children():
                attributes = die.attributes
                if die.tag not in KINDS or not {"DW_AT_byte_size", "DW_AT_name"} <= attributes.keys():
                    continue
                if files is None:
                    files = names_of_files(unit)
                name = f"{KINDS[die.tag]} {attributes['DW_AT_name'].value.decode()}"
                at = files[attributes["DW_AT_decl_file"].value], attributes["DW_AT_decl_line"].value
                key = name, attributes["DW_AT_byte_size"].value, *at
                if key not in seen:
                    seen.add(key)
                    found[name] = attributes["DW_AT_byte_size"].value, dict(members(die))
    return found


def names_of_files(unit: Any) -> list[bytes]:
    """The file names that the numbers in DW_AT_decl_file mean."""
    header = unit.dwarfinfo.line_program_for_CU(unit).header
    folders = [entry.DW_LNCT_path for entry in header["directories"]]
    return [folders[entry.DW_LNCT_directory_index] + b"/" + entry.DW_LNCT_path for entry in header["file_names"]]


def differences(name: str, told: Told, ours: layout.Layout) -> Iterator[str]:
    """What we say otherwise than the compiler."""
    whole, parts = told
    if ours.size != whole:
        yield f"{name}: size {ours.size}, gcc says {whole}"
    placed = {member.name: member for member in ours.members}
    for member, (bit, bytes_) in parts.items():
        here = placed.get(member)
        if here is None or here.bit_offset != bit:
            yield f"{name}.{member}: bit {here and here.bit_offset}, gcc says {bit}"
        elif bytes_ and here.size != bytes_:
            yield f"{name}.{member}: {here.size} bytes, gcc says {bytes_}"


def compare(width: str, every: int) -> tuple[Counter[str], list[str], list[str]]:
    """Counts, wrong numbers, refusals."""
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    refused: list[str] = []
    seen: set[tuple[object, ...]] = set()
    known = cdecl.Known()
    options = ("-w", "-g", "-gdwarf-5", "-fno-eliminate-unused-debug-types", "-c", "-o")
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder) / "header.o"
        for header in tqdm(headers()[::every], desc=f"-m{width}", unit="header", disable=None):
            # A header that does not stand alone is included behind those that programs include before it.
            for before in ("", BEFORE):
                source = f"{before}#include <{header}>\n"
                if gcc(width, source, *options, str(compiled)).returncode == 0:
                    break
            else:
                counts["headers that gcc refuses"] += 1
                continue
            counts["headers"] += 1
            told = truth(compiled, seen)
            if not told:
                continue
            try:
                text = cdecl.Preprocessed(gcc(width, source, "-E").stdout, header, {})
                records = cdecl.Reader(known=known).read(text)
            except BadInput as e:
                refused += [f"{header}: {name}: {e}" for name in told]
                continue
            for name, it in told.items():
                try:
                    found = list(differences(name, it, layout.layout(records[name], ABIS[width])))
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
    widths = options.width or list(ABIS)
    start = time.perf_counter()
    with ProcessPoolExecutor(len(widths)) as pool:
        results = list(pool.map(compare, widths, [options.every] * len(widths)))
    for width, (counts, wrong, refused) in zip(widths, results, strict=True):
        for line in (*wrong, *refused):
            print(line)
        total = counts["exact records"] + counts["wrong records"] + len(refused)
        told = ", ".join(f"{count} {what}" for what, count in counts.items())
        print(f"{ABIS[width]}: {told}; {len(wrong)} wrong numbers, {len(refused)} records refused")
        status |= int(bool(wrong) or len(refused) * 100 > total or not total)
    print(f"{time.perf_counter() - start:.0f} s")
    return status


if __name__ == "__main__":
    sys.exit(main())
