"""Layouts against compilers: stored answers, gcc at both widths, and clang for every ABI it knows."""

import gzip
import json
from contextlib import suppress
from pathlib import Path

import pytest
import records
from hypothesis import given, settings
from hypothesis import strategies as st

from kernelnotes import cdecl, layout
from kernelnotes.abi import ABIS
from kernelnotes.ctype import Array, Enum, Record, Scalar
from kernelnotes.errors import BadInput

DATA = Path(__file__).parent / "data"
OURS = {"x86_64-sysv": "x86-64", "i386-sysv": "i386", "arm-oabi(apcs-gnu)": "arm-oabi"}
OURS |= {"win32-msvc": "win32", "win64-msvc": "win64"}
CASES = json.loads((DATA / "layout_cases.json").read_text())["cases"]
STORED = json.loads(gzip.decompress((DATA / "layout_gcc.json.gz").read_bytes()))

CLANG = {
    "x86-64": "x86_64-linux-gnu",
    "i386": "x86-linux-gnu",
    "x32": "x86_64-linux-gnux32",
    "arm-eabi": "arm-linux-gnueabi",
    "aarch64": "aarch64-linux-gnu",
    "ppc32": "powerpc-linux-musleabi",
    "ppc64": "powerpc64-linux-musl",
    "ppc64le": "powerpc64le-linux-gnu",
    "riscv32": "riscv32-linux-gnu",
    "riscv64": "riscv64-linux-gnu",
    "s390x": "s390x-linux-gnu",
    "mips-o32": "mips-linux-gnueabi",
    "mipsel-o32": "mipsel-linux-gnueabi",
    "mips-n32": "mips64-linux-gnuabin32",
    "mipsel-n32": "mips64el-linux-gnuabin32",
    "mips-n64": "mips64-linux-gnuabi64",
    "mipsel-n64": "mips64el-linux-gnuabi64",
    "sparc32": "sparc-linux-gnu",
    "sparc64": "sparc64-linux-gnu",
    "loongarch64": "loongarch64-linux-gnu",
    "win32": "x86-windows-msvc",
    "win64": "x86_64-windows-msvc",
}
# Where clang's `aligned` without a number is 16, gcc's __BIGGEST_ALIGNMENT__ (and clang's own) is 8.
BARE_DIFFERS = {"mips-o32", "mipsel-o32", "sparc32"}


def parsed(source, name):
    return cdecl.parse(source)[name]


# ------------------------------------------------------------------------------------- stored answers


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_every_stored_case_is_exact(case):
    if case["id"] == "bf_member_aligned_gcc_vs_clang":
        with pytest.raises(BadInput, match="aligned on the bit-field m2: no ABI defines it"):
            cdecl.parse(case["source"])
        return
    for name, answer in case["abis"].items():
        ours, expected = layout.layout(parsed(case["source"], case["record"]), OURS.get(name, name)), answer["expected"]
        assert (ours.size, ours.align) == (expected["size"], expected["align"]), name
        for path, place in expected["offsets"].items():
            bit = place["bit"] if isinstance(place, dict) else 8 * place
            assert (ours[path].bit_offset, ours[path].bit_width is not None) == (bit, isinstance(place, dict)), name


def differing(made, abi, answers):
    """The records of which we say something else than the compiler."""
    ours, found = cdecl.parse(records.source(made)), []
    for record in made:
        here = layout.layout(ours[record.name], abi)
        bits = {place.name: place.bit_offset for place in here.paths()}
        size, align, theirs = answers[record.name]
        if (here.size, here.align) != (size, align) or any(bits[path] != bit for path, bit in theirs.items()):
            found.append((record.source, (here.size, here.align, bits), answers[record.name]))
    return found


@pytest.mark.parametrize("abi", STORED["abis"])
def test_random_records_agree_with_stored_answers_of_a_cross_gcc(abi):
    made = [records.Made(name, source, tuple(map(tuple, members))) for name, source, members in STORED["records"]]
    answers = {
        m.name: records.Answer(size, align, dict(zip((path for path, _ in m.members), bits, strict=True)))
        for m, (size, align, *bits) in zip(made, STORED["abis"][abi], strict=True)
    }
    assert differing(made, abi, answers) == []


# ------------------------------------------------------------------------------------- compilers


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(("flag", "abi"), [("-m64", "x86-64"), ("-m32", "i386")])
@pytest.mark.needs("32-bit programs")
def test_random_records_agree_with_gcc(flag, abi, seed):
    made = records.generate(seed, 400, wide="__int128" in ABIS[abi].scalars)
    assert differing(made, abi, records.by_gcc(made, ["gcc", flag])) == []


def for_clang(abi, seed, count):
    """Records that clang can answer for on this ABI."""
    wide, windows = "__int128" in ABIS[abi].scalars, abi.startswith("win")
    long_double = not abi.startswith("ppc") or abi == "ppc64le"  # with musl, clang's is a double
    return records.generate(seed, count, wide, long_double, windows, bare=abi not in BARE_DIFFERS)


@pytest.mark.parametrize("abi", CLANG)
def test_random_records_agree_with_clang(abi):
    made = for_clang(abi, 3, 200)
    assert differing(made, abi, records.by_clang(made, CLANG[abi])) == []


# ------------------------------------------------------------------------------------- what a layout says

PACKET = """struct autofs_packet_hdr { int proto_version; int type; };
struct autofs_v5_packet { struct autofs_packet_hdr hdr; __u32 wait_queue_token; __u32 dev; __u64 ino;
__u32 uid, gid, pid, tgid, len; char name[256]; };"""


def test_the_packet_of_2012_has_300_bytes_on_i386_and_304_on_x86_64_and_x32():
    packet = parsed(PACKET, "struct autofs_v5_packet")
    sizes = {name: layout.layout(packet, name).size for name in ("i386", "x86-64", "x32", "arm-eabi", "m68k", "win32")}
    assert sizes == {"i386": 300, "x86-64": 304, "x32": 304, "arm-eabi": 304, "m68k": 300, "win32": 304}
    here = layout.layout(packet, "x86-64")
    assert (here.padding, here.holes, here["hdr.type"].offset, here["name[255]"].offset) == (4, (), 4, 299)
    assert str(here.provenance) == "model"


def test_holes_and_padding_are_what_no_member_covers():
    here = layout.layout(parsed("struct s { char a; int b; char c; int d:3, :5, e:2; };", "s"), "x86-64")
    assert here.holes == ((8, 24), (75, 5), (82, 6))
    assert (here.size, here.padding) == (12, 1)
    assert here.cache_lines() == {0: ["a", "b", "c", "d", "e"]}


def test_members_of_anonymous_records_are_found_by_their_own_name():
    here = layout.layout(parsed("struct s { int a; union { struct { char b; int c; }; long d; }; };", "s"), "s390x")
    assert {m.name: m.offset for m in here.members} == {"a": 0, "b": 8, "c": 12, "d": 8}


def test_a_flexible_array_has_an_offset_and_no_size():
    here = layout.layout(parsed("struct s { char n; unsigned long long v[]; };", "s"), "x86-64")
    assert (here.size, here["v"].offset, here["v"].size) == (8, 8, 0)


def test_an_enormous_array_costs_no_memory_and_half_the_addresses_are_the_most():
    assert layout.layout(parsed("struct s { char x[1L << 60]; };", "s"), "x86-64").size == 1 << 60
    with pytest.raises(BadInput, match="more than an object can have on i386"):
        layout.layout(parsed("struct s { char x[1LL << 31]; };", "s"), "i386")
    with pytest.raises(BadInput, match="more than"):
        layout.layout(parsed("struct s { char x[1L << 60]; };", "s"), "x86-64").pack({"x": b""})


@pytest.mark.parametrize(
    ("source", "abi", "problem"),
    [
        ("struct s { __int128 x; };", "i386", "i386 has no type __int128"),
        ("struct s { int x:33; };", "x86-64", "the width 33 is not in 1..32"),
        ("struct s { _Bool x:2; };", "x86-64", "the width 2 is not in 1..1"),
        ("struct s { int x:0; };", "x86-64", "the width 0 is not in 1..32"),
        ("struct s { char x[3 - 2 * sizeof(long)]; };", "x86-64", "more than an object can have|elements"),
        ("typedef char t __attribute__((aligned(4))); struct s { t x[2]; };", "x86-64", "not a multiple"),
    ],
)
def test_what_a_compiler_refuses_is_refused(source, abi, problem):
    with pytest.raises(BadInput, match=problem):
        layout.layout(parsed(source, "s"), abi)


def test_the_text_reads_like_pahole():
    text = str(layout.layout(parsed("struct s { char a; u64 b; char c[60]; int d:3; };", "s"), "x86-64"))
    assert "XXX 7 bytes hole" in text
    assert "size: 80, align: 8, cachelines: 2" in text
    assert "cacheline 1 boundary (64 bytes)" in text
    assert "\tchar c[60]; " in text


def test_tables_show_members_side_by_side():
    packet = parsed(PACKET, "struct autofs_v5_packet")
    table = layout.compare(packet, ["i386", "x86-64"])
    assert list(table[table.differs]["member"]) == ["struct autofs_v5_packet"]
    assert list(table.iloc[-1][["i386 size", "x86-64 size"]]) == [300, 304]
    frame = layout.layout(packet, "i386").to_frame()
    assert list(frame.columns) == ["member", "type", "offset", "size", "bit_offset", "bit_width"]


# ------------------------------------------------------------------------------------- bytes


def test_big_and_little_endian_read_the_same_bytes_differently():
    record = parsed("struct s { unsigned a:4, b:12; unsigned short c; };", "s")
    data = bytes([0x12, 0x34, 0x56, 0x78])
    assert layout.layout(record, "x86-64").unpack(data) == {"a": 0x2, "b": 0x341, "c": 0x7856}
    assert layout.layout(record, "s390x").unpack(data) == {"a": 0x1, "b": 0x234, "c": 0x5678}


def test_sizes_and_ranges_are_strict():
    here = layout.layout(parsed("struct s { unsigned char a; int b:3; char n[4]; };", "s"), "x86-64")
    good = {"a": 255, "b": -4, "n": b"abcd"}
    assert here.unpack(here.pack(good)) == good
    for wrong in ({"a": 256}, {"b": 4}, {"n": b"abc"}, {"x": 1}, {"a": "1"}):
        with pytest.raises(BadInput):
            here.pack(good | wrong)
    with pytest.raises(BadInput, match="'n' is missing"):
        here.pack({"a": 1, "b": 1})
    with pytest.raises(BadInput, match="on x86-64 has 8 bytes, got 7"):
        here.unpack(b"1234567")


def values_of(record, abi, draw):
    return {
        place.name: value_of(place.type, place.bit_width, abi, draw) for place in layout.layout(record, abi).members
    }


def value_of(ctype, width, abi, draw):
    if isinstance(ctype, Record):
        return values_of(ctype, abi, draw)
    if isinstance(ctype, Array):
        if isinstance(ctype.of, Scalar) and ctype.of.kind == "char":
            return draw(st.binary(min_size=ctype.count, max_size=ctype.count))
        return [value_of(ctype.of, None, abi, draw) for _ in range(ctype.count)]
    if isinstance(ctype, Scalar) and ctype.kind == "float":
        return draw(st.floats(width=64 if ctype.name == "double" else 32, allow_nan=False))
    if isinstance(ctype, Enum):
        return draw(st.integers(0, 2 ** ((width or 8) - 1) - 1))  # an int on Windows
    bits = width or 8 * layout.measure(ctype, ABIS[abi]).size
    if ctype.kind == "bool":
        return draw(st.booleans())
    if ctype.kind == "signed":
        return draw(st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1))
    return draw(st.integers(0, 2**bits - 1))


ROUND_TRIP = """enum e { A, B = 5 }; struct s { int a:3; unsigned long long b:37; _Bool c:1; enum e k:4; float f;
double d; u8 x[2][2]; struct { char n[3]; short z; } in[2]; struct { long q; unsigned w:9; };
long long l; } __attribute__((packed));"""


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from(["x86-64", "i386", "m68k", "s390x", "win64", "arm-oabi", "mips-n32"]))
def test_what_is_packed_is_unpacked_again(data, abi):
    record = parsed(ROUND_TRIP, "s")
    values = values_of(record, abi, data.draw)
    here = layout.layout(record, abi)
    assert here.unpack(here.pack(values)) == values


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40), st.sampled_from(list(ABIS)))
def test_arbitrary_bytes_are_read_or_refused(data, abi):
    here = layout.layout(
        parsed("struct s { _Bool b; long double x; wchar_t w; void *p; float f:1; };".replace(":1", ""), "s"), abi
    )
    if len(data) == here.size:
        here.unpack(data)
    else:
        with pytest.raises(BadInput):
            here.unpack(data)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcdefklqwxz"), inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from(["x86-64", "s390x", "m68k", "win32"]))
def test_values_of_the_wrong_type_or_size_are_packed_to_the_size_or_refused(data, abi):
    here = layout.layout(parsed(ROUND_TRIP.replace("[3]", "[4]"), "s"), abi)
    values = here.unpack(bytes(here.size))
    for name in data.draw(st.lists(st.sampled_from([*values, "unknown"]), min_size=1, max_size=3)):
        values[name] = data.draw(ANYTHING)
    with suppress(BadInput):
        assert len(here.pack(values)) == here.size


def nest(count, member):
    """The innermost of `count` records inside each other last."""
    records = "".join(f"struct s{i + 1} {{ struct s{i} {member}; }};" for i in range(count))
    return cdecl.parse(f"struct s0 {{ }}; {records}")


def test_what_has_no_size_and_innumerable_values_is_neither_read_nor_written():
    for record in (nest(40, "a, b")["s40"], parsed("struct s { struct { } x[1 << 20][1 << 20]; };", "s")):
        here = layout.layout(record, "i386")
        assert here.size == 0
        for refused in (lambda here=here: here.unpack(b""), lambda here=here: here.pack({})):
            with pytest.raises(BadInput, match=r"consists of \d+ values, more than"):
                refused()
    few = layout.layout(parsed("struct s { struct { } x[2]; int y[0]; char z[0]; };", "s"), "i386")
    assert few.unpack(b"") == {"x": [{}, {}], "y": [], "z": b""}
    assert few.pack(few.unpack(b"")) == b""


def test_members_of_members_are_listed_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(layout, "MOST_PATHS", 1 << 11)
    assert len(list(layout.layout(nest(10, "a, b")["s10"], "i386").paths())) == 2**11 - 2
    with pytest.raises(BadInput, match="more than 2048 members of members"):
        layout.layout(nest(40, "a, b")["s40"], "i386").as_dict()


def test_records_too_deep_to_read_are_refused_however_they_were_laid_out():
    records = nest(1000, "a")
    for record in records.values():  # from the inside out, so that no single step is deep
        here = layout.layout(record, "i386")
    values = {}
    for _ in range(1000):
        values = {"a": values}
    for refused in (lambda: here.unpack(b""), lambda: here.pack(values), lambda: here.as_dict()):
        with pytest.raises(BadInput, match="nested too deeply"):
            refused()


def test_members_of_a_union_must_agree():
    here = layout.layout(parsed("union u { u32 whole; u8 first; };", "u"), "i386")
    assert here.pack({"whole": 0x01020304, "first": 4}) == here.pack({"whole": 0x01020304}) == b"\4\3\2\1"
    with pytest.raises(BadInput, match="contradicts"):
        here.pack({"whole": 0x01020304, "first": 5})
