"""What C says: declarations of every kind, and what is refused, with its place."""

import itertools
import re
from contextlib import nullcontext
from datetime import timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kernelnotes import cdecl, layout
from kernelnotes.errors import BadInput


def sizes(source, *abis, record="s", **options):
    found = cdecl.parse(source, **options)[record]
    return [layout.layout(found, abi).size for abi in abis]


@pytest.mark.parametrize(
    ("member", "i386", "x86_64"),
    [
        ("char x[sizeof(long)]", 4, 8),
        ("char x[128 - sizeof(void *)]", 124, 120),
        ("char x[(1 << 4) | 3 ? 'a' : 2]", 97, 97),
        ("char x[B]", 7, 7),
        ("char x[~0U >> 28]", 15, 15),
        ("char x[~0UL % 1000]", 295, 615),  # 4294967295 and 18446744073709551615
        ("char x[-1 / 2 + 3 % -2]", 1, 1),
        ("char x[offsetof(struct in, b.c)]", 5, 9),
        ("char x[__builtin_offsetof(struct in, v[2])]", 16, 20),
        ("char x[(unsigned long)&((struct in *)0)->b]", 4, 8),
        ("char x[sizeof(((struct in *)0)->v)]", 12, 12),
        ('char x[sizeof("abc")]', 4, 4),
        (r'char x[sizeof("\x41\101\n\\" "é")]', 7, 7),
        ("char x[__alignof__(long long)]", 8, 8),
        ("char x[sizeof sizeof(char)]", 4, 8),
        ("__typeof__(sizeof(char)) x", 4, 8),
        ("char x[_Alignof(long long)]", 4, 8),
        ("unsigned long x[1024 / (8 * sizeof(unsigned long))]", 128, 128),
        ("int (*f)(int, char *[3])", 4, 8),
        ("__typeof__(unsigned short) x", 2, 2),
        ("char x[2][3][4]", 24, 24),
        ("enum { ONE } x", 4, 4),
        ("_Alignas(16) char x", 16, 16),
        ("const volatile struct in *const x", 4, 8),
    ],
)
def test_constant_expressions_and_declarators(member, i386, x86_64):
    source = "struct in { long a; struct { char b0; char c; } b; int v[3]; }; enum { A = 3, B = A * 2 + 1 };"
    assert sizes(f"{source} struct s {{ {member}; }};", "i386", "x86-64") == [i386, x86_64]


@pytest.mark.parametrize(
    ("source", "size", "align"),
    [
        ("struct s { char a; int b; } __attribute__((packed));", 5, 1),
        ("struct __attribute__((__packed__, __aligned__(2))) s { char a; int b; };", 6, 2),
        ("struct s { char a; int b __attribute__((packed)); };", 5, 1),
        ("struct s { char a; int __attribute__((aligned(16))) b, c; };", 48, 16),
        ("struct s { char a; __aligned_u64 b; };", 16, 8),
        ("struct s { char a; __aligned_u64 b; } __packed;", 16, 8),
        ("typedef u64 t __attribute__((aligned(4))); struct s { char a; t b; };", 12, 4),
        ("typedef u64 t __attribute__((aligned(8))); struct s { char a; t b; } __attribute__((packed));", 9, 1),
        ("struct s { char a; int b; } __aligned(8);", 8, 8),
        ("#pragma pack(push, 2)\nstruct s { char a; int b; };\n#pragma pack(pop)\n", 6, 2),
        ("#pragma pack(1)\nstruct t { int x; };\n#pragma pack()\nstruct s { char a; int b; };", 8, 4),
        ("struct s { int a:3 __attribute__((packed)); char b; };", 2, 1),
        ("struct s { __extension__ union { int a; }; __signed__ char b; };", 8, 4),
        ("struct s { u8 a; __struct_group(t, g, , int x; int y;); };", 12, 4),
        ("typedef int d __attribute__((mode(DI))); struct s { char a; d b; };", 16, 8),
        ("struct s { int n; __DECLARE_FLEX_ARRAY(u8, v); };", 4, 4),
    ],
)
def test_attributes_packs_and_the_kernels_words(source, size, align):
    here = layout.layout(cdecl.parse(source)["s"], "x86-64")
    assert (here.size, here.align) == (size, align)


def test_macros_conditionals_and_includes(tmp_path):
    (tmp_path / "inner.h").write_text(
        "#ifndef I\n#define I\n#define N 3\ntypedef struct { char c[N]; } inner_t;\n#endif\n"
    )
    source = '#include <linux/types.h>\n#include "inner.h"\n#include "inner.h"\nstruct s { inner_t i[K]; };\n'
    source += "#if K > 3\n#error no\n#endif\n"
    assert sizes(source, "i386", defines={"K": "2"}, include=[str(tmp_path)]) == [6]
    with pytest.raises(BadInput, match=r":6:1: #error"):
        cdecl.parse(source, defines={"K": "4"}, include=[str(tmp_path)])
    with pytest.raises(BadInput, match=r"<source>:2:1: #include .inner.h. is not found, and no include path is given"):
        cdecl.parse(source)


def test_includes_that_go_round_or_double_are_refused(tmp_path, monkeypatch):
    (tmp_path / "self.h").write_text('int x;\n#include "again.h"\n')
    (tmp_path / "again.h").write_text('#include "self.h"\n')
    with pytest.raises(BadInput, match="nested more than 80 deep"):
        cdecl.parse('#include "self.h"', include=[str(tmp_path)])
    for i in range(40):
        (tmp_path / f"d{i}.h").write_text(f'#include "d{i + 1}.h"\n' * 2)
    (tmp_path / "d40.h").write_text("int x;\n")
    monkeypatch.setattr("kernelnotes.cdecl.expander.MOST_EXPANDED", 1 << 20)
    with pytest.raises(BadInput, match="expand to more than 1 MiB"):
        cdecl.parse('#include "d0.h"', include=[str(tmp_path)])


def test_records_are_found_by_tag_alone_and_by_typedef():
    found = cdecl.parse("typedef struct { int a; } t; struct s { t x; }; typedef struct s s_t; union s2 { int b; };")
    assert list(found) == ["t", "struct s", "union s2"]
    assert found["s"] is found["s_t"] is found["struct s"]
    with pytest.raises(KeyError):
        found["no"]


def test_functions_and_variables_are_passed_over():
    found = cdecl.parse(
        "static inline int f(struct s *p) { return ({ 1; }); } extern int v; struct s { int x; } one = { 1 };"
    )
    assert list(found) == ["struct s"]


def test_preprocessed_text_keeps_its_places():
    with pytest.raises(BadInput, match=r"^real\.h:41:\d+: "):
        cdecl.parse('# 1 "x.c"\n# 40 "real.h" 1\nstruct s {\nint x[n]; };\n')


DOUBLING = "#define B0 x x\n" + "".join(f"#define B{i + 1} B{i} B{i}\n" for i in range(40)) + "B40"


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("struct s { foo x; };", r"a\.h:1:\d+: .*foo|a\.h:1:\d+: "),
        ("\n\nstruct s { int a", r"a\.h:3:1: '\{' is never closed in: struct s"),
        ("struct s { int a; }; }", r"a\.h:1:22: unexpected '\}'"),
        ("struct s { int a; }", r"a\.h:1:1: unfinished declaration, a ';' is missing"),
        ("struct s { struct t x; };", r"a\.h:1:\d+: member 'x' is of the incomplete type struct t"),
        ("struct s { void x; };", "incomplete type void"),
        ("struct s { int f(void); };", "member 'f' is a function"),
        ("struct s { int x[], y; };", "the flexible array 'x' is not the last member"),
        ("struct s { int x; char x; };", "two members are called 'x'"),
        ("struct s { int x[n]; };", "'n' is not a constant known here"),
        ("struct s { int x[1 / 0]; };", "division by zero"),
        ("struct s { int x[1 << 40]; };", "a shift by 40 of 32 bits"),
        ("struct s { int x[f(1)]; };", "a function call is no integer constant"),
        (r'struct s { char x[sizeof("\x")]; };', r'the string "\\x" is not supported'),
        ('struct s { char x[sizeof(L"abc")]; };', 'the string L"abc" is not supported'),
        ("struct s { __typeof__(1 + sizeof(int)) x; };", "whose value depends on the ABI is not supported"),
        ("struct s { float x:3; };", "not of an integer type"),
        ("struct s { int x:3 __attribute__((aligned(8))); };", "aligned on the bit-field x: no ABI defines it"),
        ("struct s { int x __attribute__((mode(DI))); };", "'mode' changes layouts"),
        ("struct s { int x __attribute__((aligned(3))); };", "3 is not a power of two"),
        ("struct s { int * __attribute__((packed)) x; };", "gcc and clang differ"),
        ("struct s { _Atomic int x; };", "_Atomic"),
        ("struct s { int x; }; struct s { char y; };", "struct s is defined twice, first at a.h:1"),
        ("#pragma pack(3)\n", r"a\.h:1:1: #pragma pack\(3\) is not understood"),
        ("#pragma pack(pop)\n", r"pack\(pop\) without a push"),
        ("struct s {\n#pragma pack(1)\nint x; };", r"a\.h:2:1: #pragma pack inside a declaration"),
        ("hello world;", r"a\.h:1:\d+"),
        ("struct s { int x" + "[1]" * 5 + "; }; " + "{" * 500, "nested more than 80 deep|"),
        ("struct s { int x[" + "(" * 5000 + "1" + ")" * 5000 + "]; };", "nested"),
        ("struct s { int x[" + "1+" * 20000 + "1]; };", "nested"),
        ("struct s { int x[" + "9" * 5000 + "]; };", "is not an integer|does not fit"),
        ("# " + "9" * 5000 + "\nhello world;", r"a\.h:"),
        ("struct s {\n# " + "9" * 5000 + "\nint x; };", "invalid #line directive"),
        (f"#define A(x) {'x##' * 8}x\n#define B(x) A(x)\n{'B(' * 9}y{')' * 9};", "macros expand to more than"),
        (f"#define A(x) #x #x\n#define B(x) A(x)\n{'B(' * 20}y{')' * 20};", "macros expand to more than"),
        (DOUBLING, "macros expand to more than"),
    ],
    ids=lambda text: text[:30],
)
def test_what_cannot_be_read_is_refused_with_place_and_reason(source, problem):
    with pytest.raises(BadInput, match=problem):
        cdecl.parse(source, filename="a.h")


def test_enumerators_that_double_are_worked_out_once_and_long_lists_of_them_stay_short():
    doubled = ", ".join(f"A{i + 1} = (A{i} + A{i}) / 2" for i in range(60))
    assert sizes(f"enum {{ A0 = sizeof(long), {doubled} }}; struct s {{ char x[A60]; }};", "i386", "s390x") == [4, 8]
    listed = ", ".join(f"B{i}" for i in range(1, 20_001))
    found = cdecl.parse(f"enum {{ B0 = sizeof(long), {listed} }}; struct s {{ char x[B20000]; }};")
    assert layout.layout(found["s"], "i386").size == 20_004
    assert found.constants["B20000"].text == "sizeof(long) + 20000"


WORDS = """struct union enum typedef int char long unsigned s t x y { } ( ) [ ] ; , : = 1 0 3 * + - / % << ~ & -> .
sizeof " ' \\ # #define #if #endif #include #pragma pack ( push __attribute__ (( packed aligned _Alignas offsetof __u64
void /* */ // _Static_assert typeof volatile const ... ?""".split()  # noqa: SIM905
WORDS.append("\n")


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join)))
@example("struct s { int x[sizeof(struct s)]; };")
@example("struct s { int x : sizeof(x); };")
def test_any_text_gives_records_or_bad_input(text):
    try:
        for record in cdecl.parse(text).values():
            layout.layout(record, "i386")
    except BadInput:
        pass


NUMBERS = st.sampled_from([0, 1, 2, 3, 8, 31, 33, 64, 65, 2**28, 2**29, 2**31, 2**32, 2**60, 2**63, 2**64 - 1, 10**40])
EXPRESSIONS = st.recursive(
    NUMBERS.map(str) | st.sampled_from(["sizeof(long)", "A", "B", "-1", "'a'", "1ULL", "0x7fffffffL"]),
    lambda inner: st.one_of(
        st.builds(
            "({} {} {})".format,
            inner,
            st.sampled_from(["+", "-", "*", "/", "%", "<<", ">>", "&", "|", "^", "<", "==", "&&", "||"]),
            inner,
        ),
        st.builds("{}{}".format, st.sampled_from(["-", "~", "!", "(char)", "(unsigned long)", "sizeof "]), inner),
        st.builds("({} ? {} : {})".format, inner, inner, inner),
    ),
    max_leaves=6,
)
MEMBERS = st.recursive(
    st.one_of(
        st.builds("char M[{}];".format, EXPRESSIONS),
        st.builds("u64 M[{}][{}];".format, EXPRESSIONS, EXPRESSIONS),
        st.builds("{} M : {};".format, st.sampled_from(["int", "u64", "_Bool", "long"]), EXPRESSIONS),
        st.builds("int : {};".format, EXPRESSIONS),
        st.builds("u32 M __attribute__((aligned({})));".format, EXPRESSIONS),
        st.builds("enum {{ M = {}, M }} M;".format, EXPRESSIONS),
    ),
    lambda inner: st.builds(
        "{} {{ {} }} {} {};".format,
        st.sampled_from(["struct", "union"]),
        st.lists(inner, max_size=3).map(" ".join),
        st.sampled_from(["", "__packed", "__attribute__((aligned(16)))"]),
        st.sampled_from(["", "M", "M[1 << 20]"]),
    ),
    max_leaves=5,
)


def laid_out_or_refused(source):
    """The names of the records, all of them laid out, or the reason why not."""
    try:
        records = cdecl.parse(source)
        for record in records.values():
            for abi in ("i386", "m68k", "win64"):
                layout.layout(record, abi)
        return list(records)
    except BadInput as e:
        return str(e)


@settings(max_examples=120, deadline=timedelta(seconds=10))
@given(st.lists(MEMBERS, min_size=1, max_size=4))
def test_absurd_numbers_give_records_or_bad_input_and_take_no_time(members):
    source = "enum { A = 1 << 30, B = sizeof(long) }; struct s {" + " ".join(members) + "};"
    fresh = itertools.count()
    laid_out_or_refused(re.sub(r"\bM\b", lambda _: f"m{next(fresh)}", source))


@settings(max_examples=25, deadline=timedelta(seconds=10))
@given(
    st.integers(1, 3000),
    st.sampled_from(
        [
            ("struct s {", "int x;", "} x;"),
            ("struct s { union { int a[sizeof(", "int", ")]; }; };"),
            ("(", "int x", ")"),
            ("struct s { int ", "x", "[1]; };"),
            ("int *", "x", ";"),
            ("__attribute__((aligned(", "8", ")))"),
            ("typeof(", "int", ") x;"),
            ("enum { A = -", "1", "};"),
            ("char x[1 ? ", "2", " : 3];"),
            ("#if 1\n", "int x;", "\n#endif\n"),
            ("#if (", "1", ")\n#endif\n"),
            ("#define A(x) (x)\nA(", "int", ")\n"),
            ("#pragma pack(push, 1)\n", "struct s { int x; };", "\n#pragma pack(pop)\n"),
        ]
    ),
)
def test_nesting_of_any_depth_gives_records_or_bad_input(depth, parts):
    opening, inside, closing = parts
    laid_out_or_refused(opening * depth + inside + closing * depth)


@settings(max_examples=12, deadline=timedelta(seconds=10))
@given(st.integers(1, 1000), st.sampled_from(["struct {{ {} x; }}", "{} x[1]", "{} *x", "typeof({}) x"]), st.booleans())
def test_chains_of_typedefs_of_any_length_give_records_or_bad_input(length, link, first_ones_first):
    chain = ["typedef int t0;"]
    for i in range(1, length + 1):
        declared = link.format(f"t{i - 1}")
        chain.append(f"typedef {declared} t{i};" if "{" in declared else f"typedef {declared.replace('x', f't{i}')};")
    found = cdecl.parse("".join(chain) + f"struct s {{ t{length} x; }};")
    deep = length > 100  # such a chain may be refused
    with pytest.raises(BadInput, match="nested too deeply") if deep else nullcontext():
        for record in list(found.values()) if first_ones_first else [found["s"]]:
            assert layout.layout(record, "i386").size == 4
        if deep:
            raise BadInput("nested too deeply, or laid out")


@pytest.mark.parametrize("number", ["1 << 8000000000", "1 << (1 << 40)", "1U << -1"])
def test_shifts_by_absurd_numbers_are_refused_before_they_are_worked_out(number):
    with pytest.raises(BadInput, match="shift"):
        cdecl.parse(f"#if {number}\n#endif")
    assert cdecl.parse("#if (1 << 4) == 16 && 1 << 40\nstruct s { int x; };\n#endif")


def test_a_source_reads_below_its_own_folder_and_the_given_ones_only(tmp_path):
    (tmp_path / "secret.h").write_text("struct secret { int x; };")
    inside = tmp_path / "inside"
    inside.mkdir()
    for name in (f'"{tmp_path}/secret.h"', '"../secret.h"'):
        with pytest.raises(BadInput, match="is outside of"):
            cdecl.parse(f"#include {name}\n", filename=str(inside / "a.h"))
        assert cdecl.parse(f"#include {name}\n", filename=str(inside / "a.h"), include=[str(tmp_path)])


def test_attributes_by_the_thousand_take_no_time_that_grows_with_their_square():
    member = "int {} __attribute__((aligned(8)));"
    record = cdecl.parse("struct s {" + "".join(member.format(f"m{i}") for i in range(4000)) + "};")["s"]
    assert layout.layout(record, "i386").size == 32_000


def test_characters_are_signed_where_the_abi_says_so():
    record = cdecl.parse("struct s { char x['\\xff' & 0xfff]; };")["s"]
    # gcc -m64: 4095; char is unsigned on arm-eabi
    assert [layout.layout(record, abi).size for abi in ("x86-64", "arm-eabi")] == [4095, 255]
    with pytest.raises(BadInput, match="does not fit into a char"):
        cdecl.parse("struct s { char x['\u00e9']; };")
