"""What the pages compute in a browser, here on this Python; tests/book asks a browser."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelnotes import abi, playground, refault

ROOT = Path(__file__).resolve().parents[1]
PACKET = "struct p { __u64 ino; __u32 len; char name[256]; };"


def parsed(html):
    return ET.fromstring(f"<div>{html.replace('<col>', '<col/>')}</div>".replace("<wbr>", ""))


def test_a_struct_has_a_map_on_each_abi_and_its_hazards():
    made = playground.struct(PACKET, ["x86-64", "i386", "s390x"])["html"]
    assert made.count("<caption>struct p on ") == 3
    assert "268 and 272" not in made
    assert "272 and 268" in made
    assert "add <code>__u8 pad[4];</code> at the end" in made


def test_without_a_hazard_it_says_so_and_with_one_abi_nothing():
    assert "No hazard: x86-64 and aarch64" in playground.struct(PACKET, ["x86-64", "aarch64"])["html"]
    assert "azard" not in playground.struct(PACKET, ["x86-64"])["html"]


def test_what_an_abi_lacks_is_told_in_its_place():
    made = playground.struct("struct p { __int128 x; };", ["x86-64", "i386"])["html"]
    assert "<caption>struct p on x86-64" in made
    assert "<b>i386</b>: " in made


@pytest.mark.parametrize(
    ("source", "abis", "error", "line"),
    [
        ("struct p {\n int a;\n", ["i386"], "'{' is never closed", 1),
        ("\n\nstruct p { foo a; };", ["i386"], "not a declaration", 3),
        ("", ["i386"], "there is no struct or union", 0),
        (PACKET, [], "no ABI is chosen", 0),
        (PACKET, ["vax"], "vax", 0),
        ("int x; " * 40_000, ["i386"], "expected at most 200,000", 0),
        ("".join(f"struct s{i} {{ int a; }};" for i in range(41)), ["i386"], "41 records, expected at most 40", 0),
    ],
)
def test_errors_have_their_line(source, abis, error, line):
    made = playground.struct(source, abis)
    assert error in made["error"]
    assert made["line"] == line


def test_steps_show_what_memory_says():
    made = playground.steps("ABABCDEFC", 4, "proposal-2012")["html"]
    rows = parsed(made).findall(".//tbody/tr")
    m = refault.Memory(4)
    assert [row[2].text for row in rows] == [event.text.partition(": ")[2] for event in m.run("ABABCDEFC")]
    assert [row.get("class") for row in rows][-1] == "kn-refault"


@pytest.mark.parametrize("rules", refault.RULES)
def test_every_rule_set_can_be_stepped_through(rules):
    made = playground.steps("one two, one three  two four one", 8, rules)
    assert made["html"].count("<tr class=") == 7


def test_bad_accesses_are_told():
    assert "1 to 400" in playground.steps("A" * 401, 4, "lru")["error"]
    assert "memory" in playground.steps("AB", 0, "lru")["error"]
    assert "expected at most 1000" in playground.steps("AB", 10**9, "arc")["error"]
    assert "0 accesses" in playground.steps(" , ", 4, "lru")["error"]
    assert playground.steps("A, B,", 4, "lru") == playground.steps("A B", 4, "lru")
    assert "'magic'" in playground.steps("AB", 2, "magic")["error"]


@given(st.text(max_size=60))
def test_whatever_is_typed_is_answered_and_escaped(text):
    for made in (playground.struct(text, ["i386", "x86-64"]), playground.steps(text, 3, "lru")):
        assert set(made) in ({"html"}, {"error", "line", "column"})
    assert "<script" not in playground.steps("<script> <script>", 2, "lru")["html"]


# --- The pages and the pack that they load. ---------------------------------------------------------------------------


def test_the_pages_offer_every_abi_and_every_rule_set():
    page = (ROOT / "book" / "type-your-struct.md").read_text()
    assert sorted(re.findall(r'name="abi" value="([^"]+)"', page)) == sorted(abi.ABIS)
    page = (ROOT / "book" / "step-your-accesses.md").read_text()
    assert re.findall(r"<option[^>]*>([^<]+)", page) == list(refault.RULES)


def test_the_pack_runs_by_itself_where_nothing_is_installed(tmp_path):
    sys.path.insert(0, str(ROOT / "tools"))
    import page_python

    (tmp_path / "packages.zip").write_bytes(page_python.packages())
    code = (
        "import sys; sys.path[:] = ['packages.zip'] + [p for p in sys.path if 'site-packages' not in p]\n"
        "from kernelnotes import playground\n"
        "assert playground.__file__.startswith('packages.zip') or 'packages.zip' in playground.__file__\n"
        f"print(playground.struct({PACKET!r}, ['x86-64', 'i386'])['html'])\n"
        "print(playground.steps('ABABCDEFC', 4, 'linux-6.18')['html'])"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "272 and 268" in done.stdout
    assert page_python.packages() == (tmp_path / "packages.zip").read_bytes()
