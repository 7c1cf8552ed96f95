"""The byte map as a reader's browser gets it: cells are counted in the HTML, and compilers say where members belong."""

import json
import re
import time
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
import records
from hypothesis import given, settings
from hypothesis import strategies as st

from kernelnotes import abi, cdecl, layout
from kernelnotes.errors import BadInput
from kernelnotes.layout import bytemap
from kernelnotes.provenance import MODEL, Provenance
from kernelnotes.views import layout as pictures

CASES = json.loads((Path(__file__).parent / "data" / "layout_cases.json").read_text())["cases"]
DEFINED = [case for case in CASES if "bf_member_aligned" not in case["id"]]  # that one no ABI defines
PACKET = """struct hdr { int proto_version, type; };
struct packet { struct hdr hdr; __u32 token, dev; __u64 ino; __u32 uid, gid, pid, tgid, len; char name[256]; };"""


class Table(HTMLParser):
    """The tables of a piece of HTML: for each the caption and the rows, as (head, [(class, colspan, text, bold)])."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.tags, self.spoken, self.open = [], Counter(), [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags[tag] += 1
        self.open = self.open if tag == "wbr" else tag
        if tag == "table":
            self.tables.append({"caption": "", "rows": []})
        elif tag == "tr":
            self.tables[-1]["rows"].append(["", []])
        elif tag == "td":
            self.row[1].append([found.get("class", ""), int(found["colspan"]), "", ""])
        elif tag == "small":
            self.row[1][-1][2] += " "
        if "scope" in found:
            self.tags[f"scope {found['scope']}"] += 1

    @property
    def row(self):
        return self.tables[-1]["rows"][-1]

    def handle_data(self, text):
        if self.open == "style":
            return
        self.spoken.append(text)
        if self.open == "caption":
            self.tables[-1]["caption"] += text
        elif self.tables and self.tables[-1]["rows"]:
            if self.open == "th" and not self.row[1]:
                self.row[0] += text
            elif self.row[1]:
                self.row[1][-1][2] += text
                self.row[1][-1][3] += text if self.open == "b" else ""

    def handle_endtag(self, tag):
        if tag in ("caption", "th", "td", "b"):
            self.open = ""


def drawn(found, **how):
    [table] = Table(bytemap.table(found, **how)).tables
    return table


def cover(table):
    """({bit: how many cells show it}, {member: its first bit}, {class of a gap: bits}), counted by columns."""
    bits, firsts, gaps, at, unit = Counter(), {}, Counter(), 0, 8
    for head, cells in table["rows"]:
        if not cells:
            continue  # the line above the columns, or between them
        if number := re.fullmatch(r"(\d+)( bits)?", head):
            at, unit = 8 * int(number[1]), 1 if number[2] else 8
        here = at
        if more := re.match(r"… ([\d,]+) more bytes of", cells[0][2]):
            bits.update(dict.fromkeys(range(here, here + 8 * int(more[1].replace(",", ""))), 1))
            continue
        for css, span, text, bold in cells:
            kind = css.split()[0] if css else ""
            if kind not in ("", "kn-bits"):
                bits.update(range(here, here + span * unit))
                if bold:
                    firsts[bold] = here
                elif "tint" not in kind:
                    gaps[kind] += span * unit
                    assert text.removeprefix("≠ ").startswith(kind.removeprefix("kn-"))
            here += span * unit
    return bits, firsts, gaps


@pytest.mark.parametrize("case", DEFINED, ids=lambda case: case["id"])
@pytest.mark.parametrize(("theirs", "ours"), [("i386-sysv", "i386"), ("x86_64-sysv", "x86-64"), ("m68k", "m68k")])
def test_the_map_shows_every_member_where_gcc_puts_it(case, theirs, ours):
    expected = case["abis"][theirs]["expected"]
    found = layout.layout(cdecl.parse(case["source"])[case["record"]], ours)
    bits, firsts, _ = cover(drawn(found))
    assert set(bits) == set(range(8 * expected["size"]))
    for name, place in expected["offsets"].items():
        if name in {member.name for member in found.members if member.size}:
            assert firsts[name] == (place["bit"] if isinstance(place, dict) else 8 * place)


@given(st.integers(0, 10**6), st.sampled_from(["x86-64", "i386", "m68k", "s390x", "arm-eabi"]))
@settings(max_examples=60, deadline=None)
def test_every_bit_is_shown_once_as_member_hole_or_padding(seed, name):
    [made] = records.generate(seed, 1)
    found = layout.layout(cdecl.parse(records.source([made]))[made.name], name)
    bits, firsts, gaps = cover(drawn(found))
    assert set(bits) == set(range(8 * found.size))
    if max((run.lane for run in bytemap.runs(found)), default=0) == 0:
        assert set(bits.values()) <= {1}
        assert gaps["kn-hole"] == sum(hole.bits for hole in found.holes)
    assert gaps["kn-padding"] == 8 * found.padding
    assert firsts == {m.name: m.bit_offset for m in found.members if m.bit_width or (m.bit_width is None and m.size)}


def test_a_long_array_takes_one_row_that_says_how_many_bytes_it_stands_for():
    packet = cdecl.parse(PACKET)["struct packet"]
    table = drawn(layout.layout(packet, "x86-64"))
    assert [text for _, cells in table["rows"] for *_, text, _ in cells if "more bytes" in text] == [
        "… 248 more bytes of name; cache lines 1 to 4 begin in it"
    ]
    assert table["rows"][-1][1][-1][2] == "padding, 4 bytes"
    assert table["caption"] == "struct packet on x86-64: 304 bytes, alignment 8"


def test_cache_lines_begin_at_multiples_of_64():
    record = cdecl.parse("struct s { long a[7], b, c; char d[56]; long e, f[32]; };")["struct s"]
    told = re.findall(
        r"cache line\D+(\d+)(?: to (\d+) begin| begins at (\d+))?", str(drawn(layout.layout(record, "x86-64"))["rows"])
    )
    assert told == [("1", "", ""), ("2", "", ""), ("3", "5", ""), ("6", "", "")]
    heads = [head for head, _ in drawn(layout.layout(record, "x86-64"))["rows"]]
    assert heads[heads.index("cache line 1") + 1] == "64"


@pytest.mark.parametrize(
    ("source", "most"),
    [
        ("struct s { char a; char x[1ull << 40]; long b; };", 8_000),
        (f"struct {'s' * 50_000} {{ char {'a' * 50_000}; }};", 8_000),
        ("struct s {" + "".join(f"char {'n' * 2000}{k}; long b{k};" for k in range(4000)) + "};", 100_000),
        ("union s {" + "".join(f"char m{k}[{k}]; long b{k};" for k in range(1, 2000)) + "};", 100_000),
        ("union s {" + "".join(f"int m{k};" for k in range(20_000)) + "};", 100_000),
        ("struct s {" + "".join(f"int b{k}:3; char c{k};" for k in range(4000)) + "};", 200_000),
    ],
    ids=["a terabyte", "very long names", "long names", "a wide union", "a very wide union", "many bit-fields"],
)
def test_the_map_of_a_huge_record_is_small_and_quick(source, most):
    [record] = cdecl.parse(source).values()
    found = layout.layout(record, "x86-64")
    start = time.perf_counter()
    html = found._repr_html_()
    assert time.perf_counter() - start < 2
    assert len(html) < most


def test_a_member_that_shares_bytes_stands_below_them_in_a_row_of_its_own():
    record = cdecl.parse("struct s { int a; union { int b; char c; struct { short d, e; }; }; };")["struct s"]
    table = drawn(layout.layout(record, "x86-64"))
    assert [head for head, _ in table["rows"]][1:] == ["0", "or", "or"]
    assert cover(table)[1] == {"a": 0, "b": 32, "d": 32, "e": 48, "c": 32}


def test_of_a_very_wide_union_some_members_are_drawn_and_the_others_counted():
    record = cdecl.parse("union u {" + "".join(f"long m{k};" for k in range(100)) + "};")["union u"]
    table = drawn(layout.layout(record, "x86-64"))
    assert len(cover(table)[1]) == bytemap.MOST_LANES
    assert table["rows"][-1][0] == f"{100 - bytemap.MOST_LANES} more members share these bytes"


def test_a_record_that_is_cut_says_how_much_is_missing():
    record = cdecl.parse("struct s {" + "".join(f"long b{k};" for k in range(500)) + "};")["struct s"]
    table = drawn(layout.layout(record, "x86-64"))
    drawn_rows = sum("tint" in css for _, cells in table["rows"] for css, *_ in cells)
    assert drawn_rows == bytemap.MOST_ROWS
    assert table["rows"][-1][1][0][2].startswith(
        f"… {8 * (500 - drawn_rows):,} more bytes with {500 - drawn_rows} more"
    )


HOSTILE = "<img src=x onerror=alert(1)>&\"'"


def hostile():
    """A layout with markup wherever text can stand; the type of x comes from C source, the rest from callers."""
    source = "struct s { char x[sizeof(long) > 4 && 1 <2 ? 8 : 4]; int (*call)(char *b, int a); short y; };"
    record = cdecl.parse(source)["struct s"]
    members = [m._replace(name=HOSTILE) if m.name == "y" else m for m in record.members]
    odd = layout.layout(type(record)("struct", HOSTILE, tuple(members)), "x86-64")
    where = Provenance("recorded", HOSTILE, HOSTILE, HOSTILE)
    kinds = {name: getattr(odd, name) for name in ("record", "size", "align", "members")}
    # A name that no table has: an Abi is a caller's too.
    strange = abi.Abi(HOSTILE, "little", abi.ABIS["x86-64"].scalars)
    return layout.Layout(abi=strange, provenance=where, **kinds)


@pytest.mark.parametrize(
    "show", [lambda one: one._repr_html_(), lambda one: pictures.byte_map([one, one], HOSTILE).html]
)
def test_text_from_sources_and_callers_is_shown_and_never_run(show):
    html = show(hostile())
    tags = Table(html).tags
    assert not set(tags) & {"img", "script"}
    assert html.count("<a") == html.count('<a class="kn-csv" download="')
    assert "<img" not in html
    spoken = "".join(Table(html).spoken)
    assert spoken.count(HOSTILE) >= 3
    assert re.search(r"1 ?< ?2", spoken)


def test_a_screen_reader_hears_captions_and_the_heads_of_rows_and_columns():
    table = Table(layout.layout(cdecl.parse(PACKET)["struct packet"], "i386")._repr_html_())
    assert table.tags["caption"] == 1
    assert table.tags["scope col"] == 9
    assert table.tags["scope row"] == table.tags["tr"] - 1


def test_side_by_side_the_differing_members_are_marked_and_named():
    record = cdecl.parse("struct foo { __u32 a; __u64 b; __u32 c; };")["struct foo"]
    output = pictures.byte_map([layout.layout(record, name) for name in ("i386", "x86-64")])
    left, right = Table(output.html).tables
    marked = [
        {
            re.match(r"(?:… )?≠ (\w+)", text)[1]
            for _, cells in one["rows"]
            for css, _, text, _ in cells
            if "differs" in css
        }
        for one in (left, right)
    ]
    assert marked == [{"b", "c"}, {"b", "c", "hole", "padding"}]
    assert "20 bytes" not in left["caption"]
    assert "on i386 is 16 bytes with an alignment of 4" in output.text
    assert "What differs: b, c, hole, padding" in output.text


def test_nothing_is_marked_where_two_abis_agree():
    record = cdecl.parse(PACKET)["struct packet"]
    html = pictures.byte_map([layout.layout(record, name) for name in ("x32", "x86-64")]).html
    assert "≠" not in html
    assert "Nothing differs" in pictures.compared([layout.layout(record, name) for name in ("x32", "x86-64")]).alt


def test_every_picture_says_where_it_comes_from():
    found = layout.layout(cdecl.parse(PACKET)["struct packet"], "i386")
    assert '<span class="kn-provenance kn-model"><b>model</b></span>' in pictures.byte_map(found).html
    assert "(model)" in found._repr_html_()


@pytest.mark.parametrize("given", [[], ["x"], [3]])
def test_what_is_no_layout_is_refused(given):
    with pytest.raises(BadInput, match="one or more Layouts"):
        pictures.byte_map(given)


FRAME = pd.DataFrame(
    [
        ("struct a", "linux/kvm.h:1", "tail padding"),
        ("struct b", "linux/kvm.h:9", "interior shift"),
        ("struct c", "linux/x.h:9", "width-dependent"),
    ],
    columns=["record", "header", "kind"],
)


def test_the_census_counts_by_kind_and_by_header():
    output = pictures.census(FRAME)
    assert "3 records differ: 1 tail padding, 1 interior shift, 1 width-dependent" in output.text
    assert "by header: linux/kvm.h 2." in output.text
    for text in ("linux/kvm.h", "width-dependent", ">2<"):
        assert text in output.html


def test_a_census_of_something_else_is_refused():
    with pytest.raises(BadInput, match="kind, header"):
        pictures.census(FRAME.drop(columns="kind"))
    with pytest.raises(BadInput, match="at least one row"):
        pictures.census(FRAME.iloc[:0])


def test_the_searchable_table_has_all_its_rows_without_a_script():
    output = pictures.searchable(FRAME, "Three records", MODEL)
    assert output.html.count("<tr>") == 4
    assert 'class="kn-search"' in output.html
    assert "<script" not in output.html
