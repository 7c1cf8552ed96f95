"""BTF: against pahole on the running kernel, against the compilers that wrote it, and against bytes that lie."""

import re
import struct
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace

import agreement
import pytest
import records
from elftools.elf.elffile import ELFFile
from hypothesis import given, settings
from hypothesis import strategies as st

from kernelnotes import btf, cdecl, layout
from kernelnotes.errors import BadInput
from kernelnotes.live import btf as live

VMLINUX = live.FOLDER / "vmlinux"
needs_pahole = pytest.mark.needs(program="pahole")


@pytest.fixture(scope="module")
def kernel():
    return live.types()


@pytest.fixture(scope="module")
def everything(kernel):
    """[(name, layout)] of every struct and union of the running kernel; one name may have several."""
    return [(name, one) for name in kernel for one in kernel.all(name)]


# ------------------------------------------------------------------------------------- pahole

TOP = re.compile(r"(struct|union) (\w+) \{$")
MEMBER = re.compile(r"\t+(.*?);\s+/\*\s*(\d+)(?::\s*(\d+))?\s+(\d+)\s*\*/$")
ATTRIBUTE = re.compile(r" *__attribute__\(\(.*?\)\)+")
NAME = re.compile(r"(?:\(\*+ *(?:const |volatile )*(\w+)|(\w+))(?:\[[^]]*\])*\)*(?:\(.*\))?(?::(\d+))?$")
CLOSING = re.compile(r"\} *(\**) *(\w*)((?:\[\d*\])*)(?::(\d+))?$")
SIZE = re.compile(r"\t/\* size: (\d+), ")


def by_pahole(text):
    """[(name, size, {path: (first bit, size, width)})] as pahole prints them; places in unnamed types are named too."""
    found, lines = [], iter(text.splitlines())
    for line in lines:
        if top := TOP.match(line):
            members, size = _body(lines)
            found.append((f"{top[1]} {top[2]}", size, members))
    return found


def _body(lines):
    # Up to the closing brace.  What a nested type is called stands behind it.
    members, size, outer = {}, None, []  # of a union the size is not told
    for line in lines:
        if line.startswith("}"):
            return members, size
        size = int(told[1]) if (told := SIZE.match(line)) else size
        if line.endswith("{"):
            outer.append(members)
            members = {}
        elif told := MEMBER.match(line):
            written = ATTRIBUTE.sub("", told[1])
            if not written.startswith("}"):
                name = NAME.search(written)
                members[name[1] or name[2]] = _place(told, name[3])
                continue
            star, name, brackets, width = CLOSING.match(written).groups()
            inner, members = members, outer.pop()
            if name:
                members[name] = _place(told, width)
            if not star and "[]" not in brackets:
                first = f"{name}{re.sub(r'[0-9]+', '0', brackets)}." if name else ""
                members |= {f"{first}{path}": place for path, place in inner.items()}
    raise AssertionError("the text ends within a record")


def _place(told, width):
    return 8 * int(told[2]) + int(told[3] or 0), int(told[4]), int(width) if width else None


def where(one, path):
    try:
        found = one[path]
    except BadInput:
        return None
    return found.bit_offset, found.size, found.bit_width


def disagreements(one, size, members):
    wrong = [] if size in (None, one.size) else [("size", one.size, size)]
    wrong += [(path, where(one, path), place) for path, place in members.items() if where(one, path) != place]
    named = {path for path in members if "." not in path}
    return wrong + [("members", named ^ {m.name for m in one.members})] * (named != {m.name for m in one.members})


@pytest.mark.needs("kernel types")
@needs_pahole
def test_every_record_of_the_running_kernel_is_as_pahole_prints_it(kernel):
    told = by_pahole(subprocess.run(["pahole", VMLINUX], capture_output=True, text=True, check=True).stdout)
    assert len(told) > 1000
    wrong = []
    for name, size, members in told:
        problems = [disagreements(one, size, members) for one in kernel.all(name)]
        wrong += [] if [] in problems else [(name, problems[0])]
    assert wrong == []
    assert {name for name, _, _ in told} == set(kernel)


# ------------------------------------------------------------------------------------- our rules, the headers


@pytest.mark.needs("kernel types")
def test_our_rules_reproduce_every_record_of_the_kernel_from_its_declaration(everything):
    # With the attributes found in the offsets where BTF must have dropped some; few records need any.
    unexplained, bare = [], 0
    for name, one in everything:
        ours = layout.layout(replace(one.record, _layouts={}), one.abi)
        unexplained += [name] if (ours.size, ours.members) != (one.size, one.members) else []
        members = one.record.members
        attributes = any(m.packed or m.align or (m.bits and not m.name) for m in members)
        bare += not (attributes or one.record.packed or one.record.align)
    assert unexplained == []
    assert bare > 0.95 * len(everything)


@pytest.mark.needs("kernel types", "32-bit programs")
def test_the_kernel_agrees_with_its_headers_or_the_difference_is_explained(kernel):
    found, refused = agreement.declared(agreement.headers(set(kernel)))
    assert refused == []
    told = {name: agreement.explain(layout.layout(one, "x86-64"), kernel.all(name)) for name, one in found.items()}
    assert [name for name, reason in told.items() if not reason] == []
    assert list(told.values()).count(agreement.EXACT) > 0.9 * len(told) > 500
    moved = [name for name, one in found.items() if told[name] == agreement.EXACT and moves(one)]
    # The wrong ABI is found out: an explanation fits few of the records that are others there.
    assert len(moved) > 100
    excused = [n for n in moved if agreement.explain(layout.layout(found[n], "i386"), kernel.all(n))]
    assert len(excused) < len(moved) / 10


@pytest.mark.parametrize(
    ("ours", "kernels", "reason"),
    [
        ("int a; int b; long c;", "int a; int b; long c;", agreement.EXACT),
        ("int a; int b; long c;", "int x; int y; long c;", "other names"),
        ("int a; int reserved; long c;", "int a; int b; long c; long d;", "added"),
        ("int a; int b; long c;", "int a; long c;", "removed"),
        ("int a; int b; long c;", "int b; int a; long c;", None),
        ("int a; int b; long c;", "int b; int a; long c; long d;", None),
        ("long c; int a;", "int a; long c;", None),
    ],
)
def test_a_name_on_both_sides_at_two_places_is_a_mistake_and_no_difference(ours, kernels, reason):
    one, other = (
        layout.layout(cdecl.parse(f"struct s {{ {members} }};")["struct s"], "x86-64") for members in (ours, kernels)
    )
    assert agreement.explain(one, [other]) == reason


def moves(record):
    """Is it another on i386?"""
    a, b = (layout.layout(record, abi) for abi in ("i386", "x86-64"))
    return a.size != b.size or [m.offset for m in a.members] != [m.offset for m in b.members]


# ------------------------------------------------------------------------------------- compilers


def section(path):
    with path.open("rb") as file:
        return ELFFile(file).get_section_by_name(".BTF").data()


def compiled(source, folder, *command):
    """The object file that the command makes of C text."""
    (folder / "a.c").write_text(source)
    done = subprocess.run([*command, "-w", "-c", "a.c", "-o", "a.o"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "a.o"


def by_clang(source, folder, target):
    """The BTF that clang writes by itself, as it does for BPF and for nothing else."""
    return section(compiled(source, folder, sys.executable, "-m", "ziglang", "cc", "-target", target, "-g"))


def by_gcc_and_pahole(source, folder, flag):
    """The BTF that pahole makes of gcc's debug information, as for a kernel."""
    path = compiled(source, folder, "gcc", flag, "-g")
    subprocess.run(["pahole", "-J", "--btf_gen_floats", path], check=True, capture_output=True)
    return section(path)


def at_random():
    """Random records, one variable of each to have them in the BTF, which has no complex numbers."""
    made = [m for m in records.generate(seed=5, count=300) if "_Complex" not in m.source]
    return made, records.source(made) + "".join(f"{m.name} v{i};\n" for i, m in enumerate(made))


def differing(types, made, answers):
    found = []
    for m in made:
        here, (size, _, bits) = types[m.name], answers[m.name]
        ours = {place.name: place.bit_offset for place in here.paths()}
        wrong = {path: (ours.get(path), bit) for path, bit in bits.items() if ours.get(path) != bit}
        found += [(m.source, here.size, size, wrong)] if wrong or here.size != size else []
    return found


@pytest.mark.parametrize(("target", "endian"), [("bpfel", "little"), ("bpfeb", "big")])
def test_random_records_are_where_clang_put_them(tmp_path, target, endian):
    made, source = at_random()
    types = btf.read(by_clang(source, tmp_path, f"{target}-freestanding"))
    assert types.abi.endian == endian
    assert differing(types, made, records.by_clang(made, f"{target}-freestanding")) == []


@pytest.mark.needs("32-bit programs")
@needs_pahole
@pytest.mark.parametrize(("flag", "abi"), [("-m64", "x86-64"), ("-m32", "i386")])
def test_random_records_are_where_gcc_put_them(tmp_path, flag, abi):
    made, source = at_random()
    types = btf.read(by_gcc_and_pahole(source, tmp_path, flag))
    assert types.abi.name == abi
    assert differing(types, made, records.by_gcc(made, ["gcc", flag])) == []


KINDS = """
typedef unsigned char u8; typedef unsigned int u32; typedef unsigned long long u64; typedef struct { u8 lo, hi; } pair;
enum small { A, B = 7 }; enum minus { N = -5 }; enum big { H = 0x100000000 }; enum deep { D = -0x100000000 };
struct inner { u8 x; u32 y : 3, z : 29; };
struct all {
	char c;
	float f;
	double d;
	_Bool b;
	enum small s;
	enum minus n;
	enum big e;
	enum deep m;
	struct inner in[2];
	pair both;
	const volatile u64 v __attribute__((btf_decl_tag("tagged")));
	struct all *next;
	void (*call)(struct all *, ...);
	int (*(*maker)(void))(char *const);
	int (*grid)[4];
	u8 *(*table[3])(u32);
	u32 b1:1;
	u32 b7:7;
	long long w:33;
	signed char sc:3;
	u8 __attribute__((btf_type_tag("user"))) *user;
	const char *const *names;
	u8 flex[];
};
struct all instance __attribute__((btf_decl_tag("global")));
static int hidden;
int function(struct all *restrict a, const char *const name) { return a->c + name[0] + hidden++; }
"""


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """The bytes of a small BTF file with every kind of type in it."""
    return by_clang(KINDS, tmp_path_factory.mktemp("kinds"), "bpfel-freestanding")


def test_every_kind_is_printed_as_the_source_declares_it(kinds):
    source = KINDS[KINDS.index("struct all {") : KINDS.index("};\nstruct all inst")]
    declared = re.findall(r"^\t(.*;)$", re.sub(r" ?__attribute__\(\(.*?\)\)\)?", "", source), re.M)
    printed = re.findall(r"^\t([^/\n].*;) +/\*", str(btf.read(kinds)["all"]), re.M)
    assert [line.replace(" ", "") for line in printed] == [line.replace(" ", "") for line in declared]


def test_the_range_and_the_size_of_an_enumeration_are_those_of_the_source(kinds):
    enums = {m.name: m.type for m in btf.read(kinds)["all"].members if m.name in "snem"}
    ranges = {name: (enum.low, enum.high) for name, enum in enums.items()}
    assert ranges == {"s": (0, 7), "n": (-5, -5), "e": (2**32, 2**32), "m": (-(2**32), -(2**32))}


def test_bytes_are_read_and_written_by_the_places_of_btf(kinds):
    inner = btf.read(kinds)["inner"]
    assert inner.pack({"x": 1, "y": 5, "z": 6}) == bytes.fromhex("01050000 06000000")
    assert inner.unpack(bytes.fromhex("01050000 06000000")) == {"x": 1, "y": 5, "z": 6}


def test_a_record_is_found_by_tag_by_kind_and_tag_and_by_typedef(kinds):
    types = btf.read(kinds)
    assert types.record("inner") is types.record("struct inner") is types["all"]["in[0]"].type
    assert str(types.record("pair")) == "pair"
    assert "inner" in types
    assert "union inner" not in types


def test_the_declaration_can_be_laid_out_for_another_abi(kinds):
    assert layout.layout(btf.read(kinds).record("all"), "m68k").align == 2
    assert layout.layout(btf.read(kinds).record("all"), "i386")["next"].size == 4


@pytest.mark.needs("kernel types", "32-bit programs")
@needs_pahole
def test_the_split_btf_of_a_module_goes_on_where_vmlinux_ends(tmp_path, kernel):
    source = "struct list_head { struct list_head *next, *prev; }; typedef unsigned long ours_t;"
    source += (
        "struct ours { struct list_head list; int x : 5; ours_t flags; union { char a; long b; }; struct ours *up; };"
    )
    path = compiled(source + "struct ours instance;", tmp_path, "gcc", "-m64", "-g")
    subprocess.run(["pahole", "-J", "--btf_base", VMLINUX, path], check=True, capture_output=True)
    types = btf.read(section(path), kernel)
    assert list(types) == ["struct ours"]
    assert types["ours"]["list"].type is kernel.record("list_head")
    command = ["pahole", "-C", "ours", "--btf_base", VMLINUX, path]
    [(name, size, members)] = by_pahole(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert (name, disagreements(types["ours"], size, members)) == ("struct ours", [])
    assert types["task_struct"].size == kernel["task_struct"].size


# ------------------------------------------------------------------------------------- bytes made here


def made(types, names=(), endian="<", length=24, layouts=b""):
    """BTF of these words; the n-th name, from 1 on, is `names[n - 1]`, and a type names it as nth(n)."""
    body = struct.pack(f"{endian}{len(types)}I", *types)
    strings = b"\0" + b"".join(name.encode().ljust(7, b"\0") + b"\0" for name in names)
    header = struct.pack(f"{endian}HBBIIIII", 0xEB9F, 1, 0, length, 0, len(body), len(body), len(strings))
    if length >= 32:
        header += struct.pack(f"{endian}II", len(body) + len(strings), len(layouts))
    return header.ljust(length, b"\0") + body + strings + layouts


def nth(n):
    return 8 * (n - 1) + 1


def info(kind, vlen=0, flag=0):
    return flag << 31 | kind << 24 | vlen


INT32 = [nth(1), info(btf.INT), 4, 32]
INT32_SIGNED = [nth(1), info(btf.INT), 4, 1 << 24 | 32]


@pytest.mark.parametrize("endian", "<>")
def test_an_old_bit_field_has_its_width_and_part_of_its_place_in_an_integer_of_its_own(endian):
    # Documentation/bpf/btf.rst: a member at bit 100 of an integer with offset 2 and 4 bits occupies bits 102 to 105.
    types = [nth(1), info(btf.INT), 4, 2 << 16 | 4, nth(2), info(btf.STRUCT, 1), 16, nth(3), 1, 100]
    [member] = btf.read(made(types, ["int", "s", "m"], endian))["s"].members
    assert (member.bit_offset, member.bit_width, member.offset, member.size) == (102, 4, 12, 4)


def test_a_kind_of_a_later_kernel_is_skipped_by_the_size_its_layout_section_tells():
    layouts = bytes(4 * 20) + bytes([4, 8, 0, 0])  # kind 20: 4 bytes, and 8 per element
    types = [*INT32, 0, info(20, 2), 0, *range(5), nth(2), info(btf.STRUCT, 1), 4, nth(3), 1, 0]
    assert btf.read(made(types, ["int", "s", "m"], length=32, layouts=layouts))["s"].size == 4
    with pytest.raises(BadInput, match="type 2 is of the unknown kind 20"):
        btf.read(made(types, ["int", "s", "m"]))


def record(*members, size=4, flag=0, kind=btf.STRUCT):
    """A struct called s, to be type 2 behind an int."""
    words = [word for member in members for word in member]
    return made([*INT32, nth(2), info(kind, len(members), flag), size, *words], ["int", "s", "m"])


def chain(levels, name):
    """Each struct has the one before twice: 2**levels members."""
    types = [*INT32, 0, info(btf.STRUCT, 1), 1 << 30, nth(3), 1, 0]
    for number in range(2, levels + 2):
        types += [nth(2) if number == levels + 1 else 0, info(btf.STRUCT, 2), 1 << 30, name, number, 0, name, number, 0]
    return made(types, ["int", "s", "m"])


TWO_TO_THE_60 = [0, info(btf.ARRAY), 0, 1, 1, 1 << 30, 0, info(btf.ARRAY), 0, 2, 1, 1 << 30]
LIES = {
    "nothing": (b"", "0 bytes, expected a header"),
    "half a header": (made(INT32)[:20], "20 bytes, expected a header"),
    "another magic": (b"\x7fELF" + made(INT32)[4:], "begins with 7f45, expected 9feb or eb9f"),
    "version 2": (b"\x9f\xeb\x02" + made(INT32)[3:], "version 2"),
    "a header beyond the end": (made(INT32)[:4] + b"\xff" * 4 + made(INT32)[8:], "a header of 4294967295 bytes"),
    "types beyond the end": (made(INT32)[:12] + b"\xff" * 4 + made(INT32)[16:], "type section ends at"),
    "a type cut off": (made(INT32[:3], ["int"]), "last type ends at"),
    "more members than bytes": (made([0, info(btf.STRUCT, 0xFFFF), 4]), "last type ends at"),
    "a string without end": (made(INT32, ["int"])[:-1] + b"x", "last string does not end"),
    "kind 0": (made([0, info(0), 0]), "unknown kind 0"),
    "a name beyond the strings": (made([nth(9), info(btf.STRUCT), 0], ["s"]), "no name at byte 65"),
    "a name of control characters": (made([1, info(btf.STRUCT), 0], ["\x1b[2J"]), "is no name"),
    "more bytes than any kernel": (bytes((64 << 20) + 1), "are more than"),
    "a type beyond the end": (record((nth(3), 7, 0)), "there is no type 7"),
    "a member of type void": (record((nth(3), 0, 0)), "void has no size"),
    "a member beyond the record": (record((nth(3), 1, 8)), "'m' reaches beyond the 4 bytes"),
    "a member between two bytes": (record((nth(3), 1, 1), size=8), "'m' is no bit-field, yet begins at bit 1"),
    "a bit-field wider than its type": (record((nth(3), 1, 33 << 24), size=8, flag=1), "no bit-field of 33 bits"),
    "a struct in itself": (record((nth(3), 2, 0)), "contains itself"),
    "a typedef of itself": (made([nth(2), info(btf.TYPEDEF), 1], ["int", "s"]), "no struct, union or typedef"),
    "a pointer to itself": (
        made([0, info(btf.PTR), 1, nth(2), info(btf.STRUCT, 1), 8, nth(3), 1, 0], ["int", "s", "m"]),
        "refers to itself",
    ),
    "a function of itself": (
        made(
            [0, info(btf.FUNC_PROTO, 1), 0, 0, 2, 0, info(btf.PTR), 1, nth(2), info(btf.STRUCT, 1), 8, nth(3), 2, 0],
            ["int", "s", "m"],
        ),
        "function of a function",
    ),
    "an array of itself": (
        made([0, info(btf.ARRAY), 0, 1, 1, 2, nth(2), info(btf.STRUCT, 1), 8, nth(3), 1, 0], ["int", "s", "m"]),
        "contains itself",
    ),
    "2**60 elements": (
        made(
            [*INT32, *TWO_TO_THE_60, nth(2), info(btf.STRUCT, 1), 8, nth(3), 3, 0],
            ["int", "s", "m"],
        ),
        "reaches beyond the 8 bytes",
    ),
    "2**60 members": (chain(60, 0), "more than 65536 members"),
    "2**60 members of members": (chain(60, nth(3)), "more than 65536 members"),
    "an integer of 3 bytes": (
        made([nth(1), info(btf.INT), 3, 24, nth(2), info(btf.STRUCT, 1), 4, nth(3), 1, 0], ["int", "s", "m"]),
        "an integer of 3 bytes",
    ),
    "a function as a member": (
        made([0, info(btf.FUNC_PROTO), 0, nth(2), info(btf.STRUCT, 1), 4, nth(3), 1, 0], ["int", "s", "m"]),
        "no type that a member can have",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_what_makes_no_sense_is_bad_input_that_says_what(lie):
    data, problem = LIES[lie]
    with pytest.raises(BadInput, match=re.escape(problem)):
        _ = btf.read(data)["s"]


def test_a_record_that_no_attributes_explain_is_read_all_the_same():
    # The size could be an alignment's, were a record of that size not more than i386 can address.
    types = [nth(1), info(btf.INT), 1, 8, 0, info(btf.ARRAY), 0, 1, 1, (1 << 31) - 1]
    types += [nth(2), info(btf.STRUCT, 1), 1 << 31, nth(3), 2, 0]
    one = btf.read(made(types, ["char", "s", "m"]), None, "i386")["s"]
    assert (one.size, one["m"].size) == (1 << 31, (1 << 31) - 1)


def read_all(data, base=None):
    """All that can be asked of it."""
    types = btf.read(data, base)
    for name in types:
        for one in types.all(name):
            str(one)
            one.as_dict()


def survives(data):
    with suppress(BadInput):
        read_all(data)


@settings(deadline=2000)
@given(st.binary(max_size=300), st.integers(0, 3))
def test_random_bytes_are_bad_input_or_types(data, kept):
    survives(data)
    survives(made([*INT32, *struct.unpack(f"<{len(data) // 4}I", data[: len(data) // 4 * 4])], ["int", "s", "m"]))


@settings(deadline=2000, max_examples=300)
@given(data=st.data())
def test_btf_with_some_bytes_changed_is_bad_input_or_types(kinds, data):
    changed = bytearray(kinds)
    changes = st.tuples(st.integers(0, len(kinds) - 1), st.integers(0, 255))
    for where, value in data.draw(st.lists(changes, min_size=1, max_size=8)):
        changed[where] = value
    survives(bytes(changed))
