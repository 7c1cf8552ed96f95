"""What two ABIs place differently, by kind, and that each mend removes it."""

import pytest

from kernelnotes import cdecl, layout

SOURCE = """
struct same { u32 a; u32 b; u64 c; };
struct tail { u64 ino; u32 len; char name[8]; };
struct shift { u32 a; u64 b; u32 c; };
struct outer { struct tail t; };
struct wide { long a; u32 b; };
struct pointer { void *p; u64 q; };
struct array { u32 n; struct tail t[2]; u32 end; };
"""
KINDS = {
    "struct tail": "tail padding",
    "struct shift": "interior shift",
    "struct outer": "nested record",
    "struct wide": "width-dependent",
    "struct pointer": "width-dependent",
    "struct array": "interior shift",
}


@pytest.fixture(scope="module")
def table():
    return layout.hazards(cdecl.parse(SOURCE), "i386", "x86-64").set_index("record")


def test_each_difference_has_its_kind_and_what_agrees_is_left_out(table):
    assert dict(table.kind) == KINDS
    assert table.sizes["struct tail"] == (20, 24)
    assert table.members["struct shift"] == ["b", "c"]


def test_mends_written_into_the_source_remove_the_difference(table):
    assert table.mend["struct tail"] == "add `__u8 pad[4];` at the end"
    assert table.mend["struct shift"] == "make b __aligned_u64 (align to 8)"
    assert table.mend["struct wide"] == "make a __aligned_u64"
    mended = SOURCE.replace("char name[8];", "char name[8]; u8 pad[4];")
    mended = mended.replace("u32 a; u64 b; u32 c;", "u32 a; __aligned_u64 b; u32 c;").replace(
        "long a;", "__aligned_u64 a;"
    )
    left = set(layout.hazards(cdecl.parse(mended), "i386", "x86-64").record)
    assert left == {"struct pointer", "struct array"}


def test_members_that_only_one_abi_sees_are_told():
    one, two = cdecl.parse("struct s { int a; };"), cdecl.parse("struct s { int a, b; };")
    assert list(layout.hazards(one, "i386", "x86-64", two).kind) == ["definition differs"]


def test_x32_differs_from_i386_and_not_from_x86_64_in_a_packet_of_64_bit_numbers():
    records = cdecl.parse("struct s { u64 ino; u32 len; };")
    assert layout.hazards(records, "x32", "x86-64").empty
    assert list(layout.hazards(records, "x32", "i386").kind) == ["tail padding"]
