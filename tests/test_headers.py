"""Trees of headers: read once for all that they share, told apart by ABI, with what is refused named."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_layout import CLANG

from kernelnotes import cdecl, headers, layout
from kernelnotes.abi import ABIS
from kernelnotes.errors import BadInput
from kernelnotes.live.cpp import Cpp

TREE = {
    "types.h": """
        #ifndef TYPES
        #define TYPES
        #ifdef __x86_64__
        typedef unsigned long word;
        #else
        typedef unsigned int word;
        #endif
        struct inner { unsigned long long a; unsigned int b; };
        #endif
    """,
    "one.h": '#include "types.h"\nstruct one { word w; struct inner i; };\n#define ONE_GO _IOW(1, 2, struct inner)\n',
    "two.h": '#include "types.h"\n#include "one.h"\nstruct two { struct one o[2]; char c; };\n',
    "packed.h": "#define P 1\n#pragma pack(P)\n#pragma pack(2)\nstruct packed { char c; unsigned long long x; };\n",
    "bad.h": "struct bad {",
}


@pytest.fixture
def tree(tmp_path):
    for name, text in TREE.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def found_in(tree, *names, **options):
    found = headers.examine([tree / name for name in names], "i386", "x86-64", **options)
    return {hazard.record: hazard for hazard in found.hazards}, found


def gcc(abi):
    return Cpp(f"gcc -m{abi.pointer_bits}")


@pytest.mark.parametrize("by", ["pcpp", "gcc"])
@pytest.mark.needs("32-bit programs")
def test_each_abi_sees_its_own_side_of_an_ifdef_though_the_includes_are_shared(tree, by):
    options = {"cpp": gcc} if by == "gcc" else {"include": [tree]}
    rows, found = found_in(tree, "types.h", "one.h", "two.h", **options)
    assert {name: (row.kind, row.sizes) for name, row in rows.items()} == {
        "struct inner": ("tail padding", (12, 16)),
        "struct one": ("width-dependent", (16, 24)),
        "struct two": ("width-dependent", (36, 56)),
        "ONE_GO": ("ioctl number changed", (12, 16)),
    }
    assert rows["ONE_GO"].numbers == (0x400C0102, 0x40100102)
    assert rows["struct one"].header == f"{tree}/one.h:2"
    assert rows["ONE_GO"].header == f"{tree}/one.h:3"
    assert not found.refused


def test_only_what_the_named_headers_declare_is_reported_and_the_rest_is_known(tree):
    rows, found = found_in(tree, "two.h", include=[tree])
    assert list(rows) == ["struct two"]
    assert {pair.name for pair in found.pairs} == {"struct inner", "struct one", "struct two"}


def test_a_record_is_reported_once_however_the_path_of_its_header_is_spelled(tree):
    (tree / "link").symlink_to(tree)
    (tree / "link.h").symlink_to("types.h")
    for spelled in ("link/types.h", "link.h", "../" + tree.name + "/types.h"):
        (tree / "other.h").write_text(f'#include "{tree}/types.h"\n')
        _, found = found_in(tree, spelled, "other.h", "two.h", include=[tree, tree.parent])
        assert not found.refused
        assert [hazard.record for hazard in found.hazards].count("struct inner") == 1
        assert [pair.name for pair in found.pairs].count("struct inner") == 1


def test_a_device_and_a_fifo_are_refused_and_not_read_without_end(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (Path("/dev/zero"), tmp_path / "fifo"):
        with pytest.raises(BadInput, match="expected a regular file"):
            headers.text(path)


def test_a_header_is_too_long_by_what_is_read_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(headers, "MOST_BYTES", 1 << 20)
    (tmp_path / "long.h").write_text(" " * (1 << 20))
    assert len(headers.text(tmp_path / "long.h")) == 1 << 20
    (tmp_path / "long.h").write_text(" " * ((1 << 20) + 1))
    with pytest.raises(BadInput, match="at most 1 MiB"):
        headers.text(tmp_path / "long.h")


def test_a_header_that_cannot_be_read_is_named_and_the_others_are_read(tree):
    rows, found = found_in(tree, "bad.h", "none.h", "types.h")
    assert found.refused == {
        f"{tree}/bad.h": f"{tree}/bad.h:1:1: '{{' is never closed in: struct bad {{",
        f"{tree}/none.h": f"{tree}/none.h: No such file or directory",
    }
    assert "struct inner" in rows


def test_a_pragma_survives_the_preprocessor(tree):
    with pytest.raises(BadInput, match="pack"):
        cdecl.parse(TREE["packed.h"])
    packed = cdecl.parse(TREE["packed.h"].replace("pack(P)", "once"))["packed"]
    assert layout.layout(packed, "x86-64").size == 10


def test_headers_stand_behind_those_a_program_includes_first_if_they_do_not_stand_alone(tmp_path):
    header = tmp_path / "needs.h"
    header.write_text("struct s { struct sockaddr a; unsigned long long b; };\n")
    _, found = found_in(tmp_path, "needs.h", cpp=gcc)
    assert not found.refused
    # for itself only when nobody else can help
    assert "incomplete" in found_in(tmp_path, "needs.h")[1].refused[str(header)]


def test_a_file_that_changes_its_mind_about_macros_is_read_anew(tmp_path):
    (tmp_path / "switch.h").write_text("#ifdef WIDE\ntypedef long n;\n#else\ntypedef short n;\n#endif\n")
    reader = cdecl.Reader(include=[str(tmp_path)])

    def size(first):
        records = reader.parse(f'{first}\n#include "switch.h"\nstruct s {{ n x; }};', str(tmp_path / "a.h"))
        return layout.layout(records["s"], "x86-64").size

    assert [size(""), size("#define WIDE"), size(""), size("#define WIDE 1"), size("#define OTHER")] == [2, 8, 2, 8, 2]


def test_a_file_skipped_by_pragma_once_is_not_missing_the_next_time(tmp_path):
    (tmp_path / "once.h").write_text("#pragma once\nstruct once { int x; };\n")
    (tmp_path / "outer.h").write_text('#include "once.h"\nstruct outer { struct once o; };\n')
    reader = cdecl.Reader(include=[str(tmp_path)])
    for text in (
        '#include "once.h"\n#include "outer.h"',
        '#include "outer.h"',
        '#include "outer.h"\n#include "once.h"',
    ):
        assert set(reader.parse(text, str(tmp_path / "a.h"))) == {"struct once", "struct outer"}


def test_readers_that_look_in_other_folders_share_nothing_of_that(tmp_path):
    (tmp_path / "user.h").write_text("#include <n.h>\nstruct s { n x; };\n")
    known = cdecl.Known()
    sizes = []
    for folder, ctype in (("a", "char"), ("b", "long")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "n.h").write_text(f"typedef {ctype} n;\n")
        reader = cdecl.Reader(include=[str(tmp_path / folder), str(tmp_path)], known=known)
        sizes.append(layout.layout(reader.parse("#include <user.h>\n")["s"], "x86-64").size)
    assert sizes == [1, 8]


def test_records_read_again_are_the_same_only_while_their_names_mean_the_same():
    reader = cdecl.Reader()
    one = reader.parse("typedef int n;\nstruct s { n x; };", "a.h")
    two = reader.parse("typedef int n;\nstruct s { n x; };", "a.h")
    other = reader.parse("typedef char n;\nstruct s { n x; };", "a.h")
    assert one["s"] is two["s"]
    assert layout.layout(other["s"], "i386").size == 1


SAME_NAME = [
    (  # the built-in __aligned_u64 aligns the member, a typedef of one's own the type
        "struct s { char c; __aligned_u64 x; } __attribute__((packed));",
        "typedef u64 __aligned_u64 __attribute__((aligned(8)));\nstruct s { char c; __aligned_u64 x; } "
        "__attribute__((packed));",
    ),
    (  # gcc knows $ in names
        "struct a$b { int i; };\nstruct s { struct a$b x; };",
        "struct a$b { char i[40]; };\nstruct s { struct a$b x; };",
    ),
    (  # what sizeof defines belongs to its own source
        "struct s { char x[sizeof(enum { A = 7 })]; };\nstruct last { int z; };",
        "enum { A = 3 };\nstruct last { int z; };\nstruct s { char c[A]; };",
    ),
    (
        "typedef int t;\nstruct s { char x[sizeof(t)]; };",
        "typedef long t;\nstruct s { char x[sizeof(t)]; };",
    ),
    ("enum { N = 3 };\nstruct s { char x[N]; };", "enum { N = 3000000000 };\nstruct s { char x[N / 1000000]; };"),
]


@pytest.mark.parametrize("texts", SAME_NAME)
def test_a_source_read_after_another_is_what_it_is_alone(texts):
    def places(records):
        found = [layout.layout(record, abi) for record in records.values() for abi in ("i386", "x86-64")]
        return [(str(one.record), one.size, [m.offset for m in one.members]) for one in found]

    alone = [places(cdecl.parse(text)) for text in texts]
    for order in (texts, texts[::-1]):
        shared = cdecl.Reader()
        assert [places(shared.parse(text)) for text in order] == [alone[texts.index(text)] for text in order]


def test_names_mean_what_they_mean_where_they_stand():
    text = "typedef int t;\nstruct a { char x[sizeof(t)]; };\ntypedef long t;\nstruct z { int q; };"
    assert layout.layout(cdecl.parse(text)["a"], "x86-64").size == 4
    text = "struct s { char x[sizeof(struct t { int a; })]; };\nstruct z { int q; };"  # gcc accepts it
    assert [layout.layout(record, "i386").size for record in cdecl.parse(text).values()] == [4, 4, 4]
    for text in (
        "struct a { char x[sizeof(struct b)]; };\nstruct b { int i; };",
        "struct a { char x[sizeof(1) ? N : 1]; };",
    ):
        with pytest.raises(BadInput, match=r":1:\d+: "):
            cdecl.parse(text + "\nenum { N = 3 };")


def test_counters_count_in_an_include_that_is_read_twice(tmp_path):
    (tmp_path / "m.h").write_text(
        "#define CAT_(a, b) a##b\n#define CAT(a, b) CAT_(a, b)\n#define NEW CAT(s, __COUNTER__)\n"
    )
    (tmp_path / "x.h").write_text("struct NEW { int a; };\n")
    text = '#include "m.h"\n#include "x.h"\n#include "x.h"\n'
    assert set(cdecl.parse(text, filename=str(tmp_path / "a.h"))) == {"struct s0", "struct s1"}


def test_what_one_source_may_read_another_may_not(tmp_path):
    inside = tmp_path / "in"
    inside.mkdir()
    (tmp_path / "sec.h").write_text("struct secret { int i; };\n")
    (inside / "b.h").write_text('#include "../sec.h"\n')
    reader = cdecl.Reader()
    assert set(reader.parse('#include "in/b.h"\n', str(tmp_path / "a.c"))) == {"struct secret"}
    with pytest.raises(BadInput, match="is outside of"):
        reader.parse('#include "b.h"\n', str(inside / "c.c"))


def test_what_a_macro_smuggles_into_a_question_is_not_read():
    text = "#define A _IO('a', 1) }; struct injected { int x; }; enum { Y = 2\nenum { kernelnotes_ioctl_foo = 1 };"
    records = cdecl.parse(text)
    assert (list(records), records.constants) == ([], {"kernelnotes_ioctl_foo": 1})
    with pytest.raises(BadInput, match="not known here"):
        cdecl.parse("struct kernelnotes_ioctl_x { bogus y; };\n#define A _IO('a', 1)\n")


@pytest.mark.parametrize(
    "text",
    [
        '"' + '\\"' * 20_000,
        "int a " + "asm " * 20_000 + ";",
        "#define A\n" + "a" * 80_000,
        "#define F(...) __VA_ARGS__\nint a[F(" + "1," * 50_000 + "1)];",
    ],
    ids=["string", "asm", "word", "arguments"],
)
def test_texts_made_to_be_slow_are_refused_at_once(text):
    # Each took 4 to 20 seconds once, growing with the square of its length; with it the test would not end.
    with pytest.raises(BadInput):
        cdecl.parse(text * 4 if "F(" not in text else text)


def test_a_header_that_includes_its_own_name_means_the_next_one(tmp_path):
    for folder, text in (
        ("first", "#include_next <limits.h>\nstruct a { int x; };"),
        ("second", "struct b { int y; };"),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "limits.h").write_text(text)
    folders = [tmp_path / "first", tmp_path / "second"]
    assert set(cdecl.parse("#include <limits.h>", include=map(str, folders))) == {"struct a", "struct b"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('#include "loop.h"', "nested more than"),
        ("#include <none.h>", "'none.h' is not found"),
        ("#include none", "malformed #include none"),
        ("#error no\n", ":1:1: #error no"),
    ],
)
def test_includes_that_cannot_be_are_refused_with_their_place(tmp_path, text, problem):
    (tmp_path / "loop.h").write_text('#include "again.h"\n')
    (tmp_path / "again.h").write_text('#include "loop.h"\n')
    with pytest.raises(BadInput, match=r"\.h:1:1: .*") as error:
        cdecl.parse(text, filename=str(tmp_path / "a.h"), include=[str(tmp_path)])
    assert problem in str(error.value)


def test_lines_are_true_behind_continued_lines_and_form_feeds():
    text = "/* a\n */\f\n#define A(x) \\\n  (x) + \\\n  1\n#define B(x, \\\n y) x\nstruct a { char x[A(2)]; };\n"
    [record] = cdecl.parse(text, filename="a.h").values()
    assert record.where == "a.h:8"
    assert layout.layout(record, "i386").size == 3


def test_lines_are_true_behind_line_markers_in_a_declaration():
    text = '# 1 "a.h"\nstruct a {\n# 7 "b.h" 3 4\n int x[\n# 2 "a.h"\n3];\n};\n\nstruct b { int y; };\nstruct c { ?'
    with pytest.raises(BadInput, match=r"a\.h:6:1"):
        cdecl.parse(text)
    records = cdecl.parse(text.replace("?", "int z; };"))
    assert [record.where for record in records.values()] == ["a.h:1", "a.h:5", "a.h:6"]


# ------------------------------------------------------------------------------------- macros of compilers

# Ours is gcc 12 in ISO mode on Linux; how a compiler calls itself and how it writes a number are its own affair.
VARIES = {"__GNUC__", "__GNUC_MINOR__", "__STDC_VERSION__"}
# musl's PowerPC has another long double; zig's clang leaves these older spellings of the system out.
OTHER_LONG_DOUBLE = {"ppc32", "ppc64"}


def macros_of(command):
    done = subprocess.run(
        [*command, "-std=gnu17", "-dM", "-E", "-xc", "-"], input="", text=True, capture_output=True, check=True
    )
    return dict(re.findall(r"^#define (\w+) (.*)$", done.stdout, re.M))


def number(text):
    return int(text.rstrip("UL"), 0) if re.match(r"\d", text) else text


def differing(ours, theirs, *left_out):
    left_out = VARIES.union(*left_out)
    return {
        name: (value, theirs.get(name))
        for name, value in ours.items()
        if name not in left_out and number(value) != number(theirs.get(name, "missing"))
    }


@pytest.mark.needs("32-bit programs")
@pytest.mark.parametrize("abi", ["i386", "x86-64"])
def test_predefined_macros_are_gccs(abi):
    theirs = macros_of(["gcc", f"-m{ABIS[abi].pointer_bits}"])
    assert differing(cdecl.predefined(abi), theirs) == {}
    for name in ("_LP64", "__ILP32__", "__CHAR_UNSIGNED__", "__i386__", "__x86_64__"):
        assert (name in theirs) == (name in cdecl.predefined(abi))


@pytest.mark.parametrize("abi", [abi for abi in CLANG if not abi.startswith("win")])
def test_predefined_macros_are_clangs(abi):
    theirs = macros_of([sys.executable, "-m", "ziglang", "cc", "-target", CLANG[abi]])
    ours = cdecl.predefined(abi)
    assert differing(ours, theirs, {"__SIZEOF_LONG_DOUBLE__"} if abi in OTHER_LONG_DOUBLE else set()) == {}
    for name in ("_LP64", "__LP64__", "__CHAR_UNSIGNED__", "__SIZEOF_INT128__"):
        assert (name in theirs) == (name in ours), name


# ------------------------------------------------------------------------------------- the kernel's own headers


@pytest.mark.needs("32-bit programs")
def test_the_census_misses_nothing_and_invents_nothing():
    benchmark = Path(__file__).resolve().parent.parent / "benchmarks" / "census.py"
    done = subprocess.run([sys.executable, benchmark], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 3), done.stdout + done.stderr  # 3: only too slow, which a busy machine can be
    assert re.search(r"^[1-9]\d{4,} static assertions at both widths: 0 failed$", done.stdout, re.M), done.stdout
    assert "gcc and pure Python find the same: True" in done.stdout
    assert re.search(r"^[1-9]\d{2,} mends typed in at both widths: 0 failed$", done.stdout, re.M), done.stdout
    kinds = {kind: int(count) for count, kind in re.findall(r"^ +(\d+) (.+)$", done.stdout, re.M)}
    assert set(kinds) == set(layout.KINDS)
    assert kinds["tail padding"] + kinds["interior shift"] + kinds["nested record"] > 100
