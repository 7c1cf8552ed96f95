"""Records at random, as C text, and what a compiler says about each: the oracle of the layout engine.

    made = records.generate(seed=1, count=300, wide=True)
    records.by_gcc(made, ["gcc", "-m32"])        read from the object it compiles
    records.by_clang(made, "s390x-linux-gnu")    read from its dump of record layouts

An answer is {record: Answer}; positions are in bits from the start of the record, in the order of `kernelnotes`.
"""

import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from elftools.elf.elffile import ELFFile

PREAMBLE = """typedef unsigned char u8; typedef unsigned short u16; typedef unsigned int u32;
typedef unsigned long long u64;
typedef u64 __attribute__((aligned(4))) compat_u64; typedef u32 low_u32 __attribute__((aligned(2)));
enum e { ONE = 1, TWO = ONE << 1 }; enum big { BIG = 1ULL << 40 };
enum __attribute__((packed)) tiny { TINY = 200 }; enum minus { MINUS = -1 };
typedef struct { u8 a; u64 b; } pair; typedef u16 grid[2][3]; typedef int (*callback)(void *, int);
"""
SCALARS = """char|signed char|unsigned char|short|u16|int|unsigned int|u32|long|unsigned long|long long|u64|u64|_Bool
|float|double|long double|void *|u8 *|callback|enum e|enum big|enum tiny|enum minus|compat_u64|low_u32|pair|grid
|_Complex float""".replace("\n", "").split("|")
WIDE = ["__int128", "unsigned __int128"]
BITS = {"u8": 8, "char": 8, "short": 16, "u16": 16, "int": 32, "u32": 32, "unsigned long": 32, "u64": 64, "_Bool": 1}
BITS |= {"long long": 64, "enum e": 32}


class Made(NamedTuple):
    """One record: `members` are (path, is it a bit-field, is it behind an array, so that only gcc names it)."""

    name: str
    source: str
    members: tuple[tuple[str, bool], ...]


class Answer(NamedTuple):
    """What a compiler says: bytes, bytes, {path: bits}."""

    size: int
    align: int
    bits: dict[str, int]


class Generator:
    """One seed, one sequence of records."""

    def __init__(self, seed, wide, long_double=True, windows=False, bare=True):
        self.bare = bare
        self.random = random.Random(seed)
        self.scalars = [s for s in SCALARS if long_double or s != "long double"] + (WIDE if wide else [])
        self.windows = windows
        if windows:  # clang in MSVC mode: no such enums
            self.scalars = [s for s in self.scalars if s not in ("enum big", "enum minus")]
        self.count = 0

    def chance(self, p):
        return self.random.random() < p

    def name(self):
        self.count += 1
        return f"m{self.count}"

    def record(self, number):
        self.count = 0
        kind = "union" if self.chance(0.12) else "struct"
        members = []
        body, attributes = self.body(kind, "", members, 0)
        name = f"{kind} S{number}"
        pack = self.random.choice([1, 2, 4, 8, 16]) if self.chance(0.15) else 0
        before, after = (f"#pragma pack(push, {pack})\n", "\n#pragma pack(pop)") if pack else ("", "")
        front = attributes if self.chance(0.3) else ""
        back = "" if front else attributes
        return Made(name, f"{before}{kind} {front} S{number} {{ {body} }} {back};{after}", tuple(members))

    def body(self, kind, path, members, depth):
        packed = self.chance(0.15)
        align = self.random.choice([1, 2, 4, 8, 16, 32, "" if self.bare else 64]) if self.chance(0.1) else None
        lines = [self.member(path, members, depth) for _ in range(self.random.randint(1, 8 if depth == 0 else 4))]
        if kind == "struct" and depth == 0 and self.chance(0.08):
            first, name = self.name(), self.name()
            members += [(first, False), (name, False)]
            lines.append(f"u8 {first}; {self.random.choice(['u8', 'u64', 'pair', 'u16'])} {name}[];")
        listed = ["packed"] * packed + ([f"aligned({align})" if align else "aligned"] if align is not None else [])
        self.random.shuffle(listed)
        return " ".join(lines), f"__attribute__(({', '.join(listed)}))" if listed else ""

    def member(self, path, members, depth):
        choice = self.random.random()
        if choice < 0.35:
            return self.bit_field(path, members)
        if choice < 0.5 and depth < 3:
            return self.nested(path, members, depth)
        name = self.name()
        members.append((path + name, False))
        ctype = self.random.choice(self.scalars)
        dimensions = "".join(f"[{self.dimension()}]" for _ in range(self.random.choice([0, 0, 0, 1, 1, 2])))
        attribute = self.member_attribute()
        if attribute and "*" not in ctype and self.chance(0.3):
            return f"{ctype} {attribute} {name};"
        return f"{ctype} {name}{dimensions} {attribute};"

    def member_attribute(self):
        listed = ["packed"] * self.chance(0.08)
        if self.chance(0.08):
            listed.append(f"aligned({self.random.choice([1, 2, 4, 8, 16])})")
        return f"__attribute__(({', '.join(listed)}))" if listed else ""

    def dimension(self):
        none = "4" if self.windows else "0"
        return self.random.choice(["1", "2", "3", "5", none, "sizeof(long)", "17 - sizeof(void *)", "TWO", "1 << 2"])

    def bit_field(self, path, members):
        ctype, most = self.random.choice(list(BITS.items()))
        if self.chance(0.12):
            return f"{ctype} : 0;"
        width = most if self.chance(0.1) else self.random.randint(1, most)
        if self.chance(0.1):
            return f"{ctype} : {width};"
        name = self.name()
        members.append((path + name, True))
        return f"{ctype} {name} : {width}{' __attribute__((packed))' if self.chance(0.06) else ''};"

    def nested(self, path, members, depth):
        kind = "union" if self.chance(0.3) else "struct"
        form = self.random.choice(["named", "anonymous", "array"])
        name = "" if form == "anonymous" else self.name()
        if name:
            members.append((path + name, False))
        inner = [] if form == "array" else members
        body, attributes = self.body(kind, f"{path}{name}." if form == "named" else path, inner, depth + 1)
        if form == "array" and "aligned" in attributes and "packed" in attributes:
            attributes = ""
        return f"{kind} {{ {body} }} {attributes} {name}{'[2]' if form == 'array' else ''};"


def generate(seed, count, wide=False, long_double=True, windows=False, bare=True):
    """`count` records; `wide`: with __int128; `bare`: with `aligned` without a number."""
    generator = Generator(seed, wide, long_double, windows, bare)
    return [generator.record(number) for number in range(count)]


def source(made):
    return PREAMBLE + "\n".join(m.source for m in made) + "\n"


def numbers(made):
    """C text that puts the numbers into the object: an array per record, and a record of ones per bit-field."""
    lines = []
    for m in made:
        tag = m.name.split()[1]
        plain = [path for path, is_bits in m.members if not is_bits]
        offsets = "".join(f", __builtin_offsetof({m.name}, {path})" for path in plain)
        lines.append(f"const unsigned N{tag}[] = {{ sizeof({m.name}), _Alignof({m.name}){offsets} }};")
        for index, (path, is_bits) in enumerate(m.members):
            if is_bits:
                lines.append(f"const {m.name} B{tag}_{index} = {{ .{path} = -1 }};")
    return "\n".join(lines) + "\n"


def by_gcc(made, command, endian="little"):
    """The answers of a gcc: compiles, never runs what it compiled."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "o"
        text = source(made) + numbers(made)
        flags = ["-w", "-Wno-packed-bitfield-compat", "-fno-zero-initialized-in-bss", "-c", "-xc", "-", "-o", str(out)]
        subprocess.run([*command, *flags], input=text, text=True, check=True)
        with out.open("rb") as file:
            elf = ELFFile(file)
            data = {
                s.name: elf.get_section(s["st_shndx"]).data()[s["st_value"] : s["st_value"] + s["st_size"]]
                for s in elf.get_section_by_name(".symtab").iter_symbols()
                if s["st_info"]["type"] == "STT_OBJECT"
            }
    return answers(made, data, endian)


def answers(made, data, endian):
    """{record: Answer} from the bytes of every object of `numbers`."""
    found = {}
    for m in made:
        tag = m.name.split()[1]
        row = data[f"N{tag}"]
        size, align, *offsets = (int.from_bytes(row[i : i + 4], endian) for i in range(0, len(row), 4))
        bits = dict(zip((path for path, is_bits in m.members if not is_bits), (8 * n for n in offsets), strict=True))
        for index, (path, is_bits) in enumerate(m.members):
            if is_bits:
                bits[path] = first_bit(data[f"B{tag}_{index}"], endian)
        found[m.name] = Answer(size, align, bits)
    return found


def first_bit(data, endian):
    """Where the ones begin, counted as `kernelnotes` counts."""
    value = int.from_bytes(data, endian)
    return (value & -value).bit_length() - 1 if endian == "little" else 8 * len(data) - value.bit_length()


CLANG = [sys.executable, "-m", "ziglang", "cc", "-w", "-S", "-o", "/dev/null", "-xc", "-"]
DUMP = ["-Xclang", "-fdump-record-layouts"]


def by_clang(made, target):
    """The answers of clang, from its dump.  -S is needed: with -fsyntax-only zig would go on and build a libc."""
    command = [*CLANG, *DUMP, "-target", target]
    # clang dumps what it lays out, so ask for each size.  (With -fdump-record-layouts-complete it lays records out
    # before it has read the attributes behind the brace, and is wrong.)
    asked = "".join(f"enum {{ Q{i} = sizeof({m.name}) }};\n" for i, m in enumerate(made))
    with tempfile.TemporaryDirectory() as folder:  # zig leaves a file `-.s` where it runs
        text = source(made) + asked
        done = subprocess.run(command, input=text, text=True, capture_output=True, check=False, cwd=folder)
    paths = {m.name: {path.split(".")[-1]: path for path, _ in m.members} for m in made}
    found = {}
    for block in done.stdout.split("*** Dumping AST Record Layout")[1:]:
        head = re.match(r"\s*0 \| (\w+ \w+)\n", block)
        sizes = re.search(r"\[sizeof=(\d+), align=(\d+)", block)
        if head and head[1] in paths and sizes:
            bits = {}
            for line in block.splitlines():
                row = re.match(r" *(\d+)(?::(\d+)-\d+)? \|  +.*\W(m\d+)$", line)
                if row and row[3] in paths[head[1]]:
                    bits[paths[head[1]][row[3]]] = 8 * int(row[1]) + int(row[2] or 0)
            found[head[1]] = Answer(int(sizes[1]), int(sizes[2]), bits)
    if len(found) < len(made):
        raise RuntimeError(f"clang -target {target}: {len(made) - len(found)} records missing\n{done.stderr[:2000]}")
    return found
