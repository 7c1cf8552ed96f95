"""What two ABIs place differently, by kind, and that each mend removes it."""

import random

import mending
import pytest

from kernelnotes import cdecl, layout
from kernelnotes.abi import ABIS
from kernelnotes.errors import BadInput
from kernelnotes.layout.hazards import pairs

SOURCE = """
struct same { u32 a; u32 b; u64 c; };
struct lone { u64 ino; u32 len; char name[8]; };
struct tail { u64 ino; u32 len; char name[8]; };
struct shift { u32 a; u64 b; u32 c; };
struct outer { struct tail t; };
struct wide { long a; u32 b; };
struct pointer { void *p; u64 q; };
struct array { u32 n; struct tail t[2]; u32 end; };
#define GO _IOW('x', 1, struct lone)
#define STOP _IOR('x', 2, struct same)
#define LONG _IOR('x', 3, long)
"""
KINDS = {
    "struct lone": "tail padding",
    "struct tail": "tail padding",
    "struct shift": "interior shift",
    "struct outer": "nested record",
    "struct wide": "width-dependent",
    "struct pointer": "width-dependent",
    "struct array": "interior shift",
    "GO": "ioctl number changed",
    "LONG": "ioctl number changed",
}


@pytest.fixture(scope="module")
def table():
    return layout.hazards(cdecl.parse(SOURCE), "i386", "x86-64").set_index("record")


def test_each_difference_has_its_kind_and_what_agrees_is_left_out(table):
    assert dict(table.kind) == KINDS
    assert table.sizes["struct tail"] == (20, 24)
    assert table.members["struct shift"] == ["b", "c"]


def test_an_ioctl_has_the_numbers_of_its_argument_on_each_abi(table):
    assert table.numbers["GO"] == (0x40147801, 0x40187801)
    assert table.sizes["GO"] == (20, 24)
    assert table.members["GO"] == ["struct lone"]
    assert table.numbers["LONG"] == (0x80047803, 0x80087803)
    assert table.numbers["struct lone"] is None


def test_a_pad_is_proposed_where_it_is_enough_and_an_alignment_where_the_record_is_contained(table):
    assert table.mend["struct lone"] == "add `__u8 pad[4];` at the end"
    assert table.mend["struct tail"] == "make ino __aligned_u64 (align to 8)"
    assert table.mend["struct shift"] == "make b __aligned_u64 (align to 8)"
    assert table.mend["struct wide"] == "make a __aligned_s64"
    assert table.mend["struct outer"] == table.mend["struct array"] == "mend struct tail"
    assert table.mend["GO"] == "mend struct lone"


def test_mends_written_into_the_source_remove_every_difference():
    mended = SOURCE.replace(
        "lone { u64 ino; u32 len; char name[8];", "lone { u64 ino; u32 len; char name[8]; u8 pad[4];"
    )
    mended = mended.replace("tail { u64 ino;", "tail { __aligned_u64 ino;").replace(
        "u64 b; u32 c;", "__aligned_u64 b; u32 c;"
    )
    mended = mended.replace("long a;", "__aligned_u64 a;").replace("void *p; u64 q;", "__aligned_u64 p, q;")
    mended = mended.replace("3, long)", "3, u64)")
    assert layout.hazards(cdecl.parse(mended), "i386", "x86-64").empty


@pytest.mark.needs("32-bit programs")
def test_every_mend_that_is_proposed_works_when_it_is_typed_in():
    trials, forms = [], set()
    for seed in range(1500):
        source = mending.source(random.Random(seed))
        found, tried = mending.proposed(pairs(cdecl.parse(source), None))
        trials += tried
        forms |= {word for hazard in found for word in FORMS if word in hazard.mend}
    assert mending.disagreements(trials) == []
    assert forms == set(FORMS)
    assert len(trials) > 1500


FORMS = (
    "add `__u8 pad",
    "__u64",
    "__s64",
    "__aligned_u64",
    "__aligned_s64",
    "aligned(8)",
    "mend struct",
    "after mending",
)


def test_the_one_who_types_finds_a_mend_that_is_wrong():
    record = cdecl.parse("struct s { u64 a; u32 b; };")["struct s"]
    wrong = mending.trial("wrong", record, record, "add `__u8 pad[8];` at the end", {})
    assert [label for label, _, _ in mending.disagreements([wrong])] == ["wrong"]
    behind_flexible = cdecl.parse("struct s { u64 a; u32 b; char c[]; };")["struct s"]
    impossible = mending.trial("no C", behind_flexible, behind_flexible, "add `__u8 pad[4];` at the end", {})
    with pytest.raises(mending.NoC, match="flexible array member not at end"):
        mending.disagreements([impossible])


@pytest.mark.parametrize(
    ("source", "record", "mend"),
    [
        # an outer record that i386 cannot have says nothing about the inner one
        ("struct in { u64 a; u32 b; }; struct out { struct in i; __int128 x; };", "struct in", "add `__u8 pad[4];`"),
        ("struct s { u64 a; u32 pad; };", "struct s", "add `__u8 pad2[4];` at the end"),
        ("struct s { u64 a; u32 b; char name[]; };", "struct s", "make a __aligned_u64 (align to 8)"),
        ("struct s { u32 b; u64 flexible[]; };", "struct s", "make flexible __aligned_u64 (align to 8)"),
        ("struct s { u32 n; double d; };", "struct s", "add __attribute__((aligned(8))) to d"),
        ("struct s { long d; unsigned long e; void *p; };", "struct s", "make d __s64 and e, p __u64"),
        ("struct s { long double d; };", "struct s", ""),
        ("struct s { long a; }; struct t { struct s s; }; struct u { struct t t; };", "struct u", "mend struct t"),
        ("#define GO _IOR('a', 1, struct s *)\nstruct s { int x; };", "GO", "give its argument a type of one size"),
        ("#define GO _IOR('a', 1, struct s)\nstruct s { long double x; };", "GO", ""),
        ("#define GO _IOR('a', 1, t)\ntypedef struct { u64 a; u32 b; } t;", "GO", "mend t"),
        ("#define GO _IOR('a', \\\n 1, \\\n struct s)\nstruct s { u64 a; u32 b; };", "GO", "mend struct s"),
        ("#define GO _IOC(1, 'a', 1, sizeof(struct s))\nstruct s { u64 a; u32 b; };", "GO", "mend struct s"),
        ("#define GO _IOR('a', 1, struct s[2])\nstruct s { u64 a; u32 b; };", "GO", "mend struct s"),
        # a typedef's alignment does not count in what is packed, that of an attribute does
        (
            "struct s { struct { u64 a; u32 b; }; u64 c __attribute__((packed)); };",
            "struct s",
            "add __attribute__((aligned(8))) to c",
        ),
    ],
)
def test_a_mend_says_what_was_tried_and_nothing_where_nothing_helps(source, record, mend):
    found = layout.hazards(cdecl.parse(source), "i386", "x86-64").set_index("record").mend[record]
    assert found.startswith(mend) if mend else found == ""


@pytest.mark.parametrize("length", ["sizeof(long)", "16 - sizeof(void *)"])
def test_an_array_of_another_length_depends_on_the_width(length):
    table = layout.hazards(cdecl.parse(f"struct s {{ char pad[{length}]; u32 x; }};"), "i386", "x86-64")
    assert list(table.kind) == ["width-dependent"]


def test_records_inside_records_inside_records_take_no_time_that_doubles():
    source = "struct a0 { long x; };" + "".join(f"struct a{i} {{ struct a{i - 1} x, y; }};" for i in range(1, 25))
    assert len(layout.hazards(cdecl.parse(source), "i386", "x86-64")) == 25


def test_records_nested_hundreds_deep_and_thousands_of_members_are_no_trouble():
    chain = "struct a0 { u64 x; u32 y; };" + "".join(
        f"struct a{i} {{ u32 n; struct a{i - 1} x; }};" for i in range(1, 700)
    )
    assert "struct a0" in set(layout.hazards(cdecl.parse(chain), "i386", "x86-64").record)
    many = "".join(f"u32 a{i}; u64 b{i}; long c{i};" for i in range(1000))
    assert layout.hazards(cdecl.parse(f"struct s {{ {many} }};"), "i386", "x86-64").mend[0].startswith("make c0, c1")


@pytest.mark.parametrize("records", [{}.values(), "struct s", None])
def test_what_is_no_mapping_of_records_is_refused(records):
    with pytest.raises(BadInput, match="expected records by name"):
        layout.hazards(records, "i386", "x86-64")


def test_members_that_only_one_abi_sees_are_told():
    one, two = cdecl.parse("struct s { int a; };"), cdecl.parse("struct s { int a, b; };")
    assert list(layout.hazards(one, "i386", "x86-64", two).kind) == ["definition differs"]


def test_x32_differs_from_i386_and_not_from_x86_64_in_a_packet_of_64_bit_numbers():
    records = cdecl.parse("struct s { u64 ino; u32 len; };")
    assert layout.hazards(records, "x32", "x86-64").empty
    assert list(layout.hazards(records, "x32", "i386").kind) == ["tail padding"]


def test_ioctl_numbers_follow_the_architecture_where_no_header_says_otherwise():
    source = "#define GO _IOWR('x', 2, u64)\n#define NONE _IO('x', 1)\n#define GET _IOR('x', 2, u64)\n"
    numbers = {
        name: [hex(ioctl.number.value(ABIS[abi])) for abi in ("x86-64", "ppc64", "hppa")]
        for name, ioctl in cdecl.parse(source).ioctls.items()
    }
    # asm-generic/ioctl.h; 13 bits of size and a bit for "none" on PowerPC, read and write exchanged on PA-RISC
    assert numbers == {
        "GO": ["0xc0087802", "0xc0087802", "0xc0087802"],
        "NONE": ["0x7801", "0x20007801", "0x7801"],
        "GET": ["0x80087802", "0x40087802", "0x40087802"],
    }


def test_a_macro_that_is_no_ioctl_after_all_does_not_hide_the_records():
    source = "#define A _IOR(\n#define B _IOW(1, 2, struct none)\n#define C ) _IO(1, 2)\nstruct s { int x; };"
    records = cdecl.parse(source)
    assert set(records) == {"struct s"}
    assert layout.hazards(records, "i386", "x86-64").empty
