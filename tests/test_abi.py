"""The table of ABIs against what two compilers answered (tests/data/abi_scalars.json says which and when)."""

import json
from pathlib import Path

import pytest

from kernelnotes import abi
from kernelnotes.errors import BadInput

ROWS = json.loads((Path(__file__).parent / "data/abi_scalars.json").read_text())["rows"]

# The compilers' names of our ABIs, where they differ.
OURS = {
    "x86_64-sysv": "x86-64",
    "i386-sysv": "i386",
    "arm-eabihf": "arm-eabi",
    "arm-oabi(apcs-gnu)": "arm-oabi",
    "win32-msvc": "win32",
    "win64-msvc": "win64",
}
# clang has powerpc with musl only, whose long double is a double; it was not asked for the __float128 of ppc64le.
MUSL = {("clang", "ppc32"): {"long double"}, ("clang", "ppc64"): {"long double"}, ("clang", "ppc64le"): {"__float128"}}
# Stored for comparison, not in our table.
NOT_OURS = {"hexagon", "wasm32", "aarch64-macos", "x86_64-macos", "win32-mingw", "win64-mingw", "avr", "msp430"}


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row["abi"] not in NOT_OURS], ids=lambda row: f"{row['compiler']} {row['abi']}"
)
def test_every_scalar_is_what_the_compiler_says(row):
    ours = abi.ABIS[OURS.get(row["abi"], row["abi"])]
    assert (ours.endian, ours.char_signed) == (row["endian"], row["char_signed"])
    for name, size_align in row["scalars"].items():
        if name in MUSL.get((row["compiler"], row["abi"]), set()):
            continue
        if name == "_Complex double":  # two doubles, aligned as one
            size, align = ours.scalars["double"]
            assert [2 * size, align] == size_align
        else:
            assert ours.scalars.get(name) == (size_align and tuple(size_align)), name


def test_every_abi_but_the_other_endian_of_mips_has_stored_rows():
    stored = {OURS.get(row["abi"], row["abi"]) for row in ROWS}
    assert set(abi.ABIS) - stored == {"mipsel-n32", "mipsel-n64"}


def test_every_abi_says_where_it_was_checked():
    assert all(row.checked for row in abi.ABIS.values())


def test_on_i386_alignof_and_the_alignment_inside_a_struct_differ():
    assert abi.ABIS["i386"].scalars["long long"] == (8, 4)
    assert abi.ABIS["i386"].standalone["long long"] == 8


def test_an_unknown_abi_is_refused_with_the_list():
    with pytest.raises(BadInput, match=r"unknown ABI 'i486', expected one of: x86-64, i386"):
        abi.find("i486")
    assert abi.find("x32") is abi.find(abi.ABIS["x32"])
