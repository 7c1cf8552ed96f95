"""Mends typed in: what a mend's text says is done to the C text of the record, and gcc is asked at both widths.

    found, trials = mending.proposed(pairs(cdecl.parse(source), None))
    mending.disagreements(trials)

`source` makes sources at random.

It knows the texts of mends and nothing of how they are found.  Records are written out as C again, each with the mends
that the text names, a member a line; an answer is sizeof and every offsetof that C can ask for, from the assembler that
gcc -S writes, so no number of ours takes part.  Left out: the positions of bit-fields, which offsetof refuses.
"""

import re
import subprocess
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

from kernelnotes.abi import find
from kernelnotes.ctype import Aligned, Array, Enum, Pointer, Record
from kernelnotes.layout.hazards import compared
from kernelnotes.layout.place import measure, number

WIDTHS = {"i386": "-m32", "x86-64": "-m64"}
PREAMBLE = """typedef unsigned char __u8; typedef unsigned long long __u64; typedef long long __s64;
typedef __u64 __attribute__((aligned(8))) __aligned_u64; typedef __s64 __attribute__((aligned(8))) __aligned_s64;
typedef __SIZE_TYPE__ size_t; typedef __WCHAR_TYPE__ wchar_t;
"""
BYTES = {1: "unsigned char", 2: "unsigned short", 4: "unsigned int", 8: "unsigned long long"}
ALIGNED = "__attribute__((aligned(8)))"
PAD = re.compile(r"add `__u8 (\w+)\[(\d+)\];` at the end")
MOVE = re.compile(r"move ([\w, ]+) to the front")
ATTRIBUTE = re.compile(r"add __attribute__\(\(aligned\(8\)\)\) to ([\w, ]+)")
MAKE = re.compile(r"make ([\w, ]+ __\w+(?: and [\w, ]+ __\w+)*)(?: \(align to 8\))?")
GROUP = re.compile(r"([\w, ]+) (__(?:aligned_)?[us]64)")


class NoC(AssertionError):
    """gcc refuses a mended record."""


Place = tuple[str, str]  # a record by name, and file:line


class Trial(NamedTuple):
    """A record as each width sees it, what its hazard is called, and the mends to type in, by record."""

    label: str
    here: Record
    there: Record
    mends: dict[Place, str]


@dataclass
class Declared:
    """A member as C text: the type, what stands behind the name, attributes."""

    name: str
    base: str
    after: str = ""
    attributes: list[str] = field(default_factory=list)

    def __str__(self):
        return " ".join([self.base, self.name + self.after, *self.attributes]) + ";"


def proposed(pairs, ioctls=()):
    """The hazards, and a trial of each mend among them; the mend of an ioctl is that of its argument."""
    found = compared(pairs, find("i386"), find("x86-64"), ioctls)
    texts = {(hazard.record, hazard.header): hazard.mend for hazard in found}
    mended = [(pair, mend) for pair in pairs if (mend := texts.get((pair.name, pair.here.where)))]
    mends = {(pair.name, record.where): mend for pair, mend in mended for record in (pair.here, pair.there)}
    trials = [trial(f"{p.name}, {p.here.where}: {mend}", p.here, p.there, mend, mends) for p, mend in mended]
    return found, trials


def place_of(record):
    return str(record), record.where


def trial(label, here, there, text, mends):
    """`text` typed into the record, and into the records in it the mends that it names, and so on inwards."""
    chosen = {place_of(record): text for record in (here, there)}
    todo, seen = [(here, text), (there, text)], set()
    while todo:
        record, said = todo.pop()
        for inner in inside(record):
            if id(inner) not in seen and str(inner) in named(said):
                seen.add(id(inner))
                chosen[place_of(inner)] = mends[place_of(inner)]
                todo.append((inner, mends[place_of(inner)]))
    return Trial(label, here, there, chosen)


def named(text):
    """The records that a mend wants mended: "mend struct a, struct b" or "..., after mending struct a"."""
    found = re.search(r"(?:^mend|, after mending) (.*)$", text)
    return found[1].split(", ") if found else []


def inside(record):
    """The records by value in this one, at any depth, each once."""
    found, todo = {}, [record]
    while todo:
        for member in todo.pop().members:
            element = member.type
            while isinstance(element, Array | Aligned):
                element = element.of
            if isinstance(element, Record) and id(element) not in found:
                found[id(element)] = element
                todo.append(element)
    return list(found.values())


def apply(text, members):
    """The members with the mend typed in, and what to add to the record itself."""
    text = re.sub(r",? ?after mending .*$", "", text)
    if not text or text.startswith("mend "):
        return members, ""
    if text == f"align the record: {ALIGNED}":
        return members, ALIGNED
    if found := PAD.fullmatch(text):
        return [*members, Declared(found[1], "__u8", f"[{found[2]}]")], ""
    if found := MOVE.fullmatch(text):
        front = found[1].split(", ")
        return [m for m in members if m.name in front] + [m for m in members if m.name not in front], ""
    by_name = {member.name: member for member in members}
    make, _, attribute = text.partition("add ") if text.startswith("make") else ("", "", text[len("add ") :])
    if make:
        for group in re.split(r" and ", MAKE.fullmatch(make.removesuffix(", "))[1]):
            names, spelling = GROUP.fullmatch(group).groups()
            for name in names.split(", "):
                by_name[name].base = spelling
    if attribute:
        for name in ATTRIBUTE.fullmatch(f"add {attribute}")[1].split(", "):
            by_name[name].attributes.append(ALIGNED)
    return members, ""


class Writer:
    """Writes records as C text for one width, each once, under names that nothing else has."""

    def __init__(self, abi, prefix, mends):
        self.abi, self.prefix, self.mends = find(abi), prefix, mends
        self.lines, self.names, self.numbers = [], {}, count()

    def record(self, record):
        """The name of the record, which has been written before."""
        if id(record) not in self.names:
            members = [self.member(m) for m in record.members]
            members, added = apply(self.mends.get(place_of(record), ""), members)
            name = self.names[id(record)] = f"{record.kind} {self.prefix}{next(self.numbers)}"
            body = "\n".join(f"    {member}" for member in members)
            packed = ["__attribute__((packed))"] if record.packed else []
            end = " ".join(["}", *packed, *self.aligned(record.align), added])
            self.lines += [f"#pragma pack({record.pack or ''})", f"{name} {{", body, f"{end};", "#pragma pack()"]
        return self.names[id(record)]

    def member(self, member):
        base, after = self.type(member.type)
        if member.bits is not None:
            after = f" : {number(member.bits, self.abi)}"
        packed = ["__attribute__((packed))"] if member.packed else []
        return Declared(member.name, base, after, [*packed, *self.aligned(member.align)])

    def aligned(self, asked):
        bytes_ = number(asked, self.abi)
        return [f"__attribute__((aligned({bytes_})))"] if bytes_ else []

    def type(self, ctype):
        """The text in front of the name, and the text behind it."""
        if isinstance(ctype, Array):
            base, after = self.type(ctype.of)
            return base, f"[{'' if ctype.count is None else number(ctype.count, self.abi)}]{after}"
        if isinstance(ctype, Record):
            return self.record(ctype), ""
        if isinstance(ctype, Pointer):
            return "void *", ""
        if isinstance(ctype, Enum):
            return BYTES[measure(ctype, self.abi).size], ""
        if isinstance(ctype, Aligned):
            base, after = self.type(ctype.of)
            name = f"{self.prefix}t{next(self.numbers)}"
            self.lines.append(f"typedef {base} {name}{after} {' '.join(self.aligned(ctype.align))};")
            return name, ""
        return str(ctype), ""


def written(trial_, abi, prefix):
    """C text of the record, mended, and of a table of what to compare, each number one more than it is."""
    record = trial_.here if abi == "i386" else trial_.there
    writer = Writer(abi, prefix, trial_.mends)
    name = writer.record(record)
    asked = [f"sizeof({name})", *(f"__builtin_offsetof({name}, {path})" for path in paths(record))]
    table = f"const unsigned {prefix}answers[] = {{ {', '.join(f'1 + {one}' for one in asked)} }};"
    return "\n".join([*writer.lines, table])


def paths(record):
    """The members that have an offset, those of anonymous records too."""
    for member in record.members:
        if member.name and member.bits is None:
            yield member.name
        elif not member.name and isinstance(member.type, Record):
            yield from paths(member.type)


def answers(trials, abi):
    """What gcc says of each trial at that width.  Raises NoC with its words where it refuses one."""
    text = PREAMBLE + "\n".join(written(one, abi, f"r{i}_") for i, one in enumerate(trials))
    command = ["gcc", WIDTHS[abi], "-w", "-fms-extensions", "-S", "-o", "-", "-xc", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode:
        told = [line for line in done.stderr.splitlines() if "error" in line]
        raise NoC("\n".join(told[:5]))
    found = {}
    for line in done.stdout.splitlines():
        if label := re.match(r"r(\d+)_answers:", line):
            current = found[int(label[1])] = []
        elif value := re.match(r"\s+\.long\s+(\d+)", line):
            current.append(int(value[1]) - 1)
    return [found[i] for i in range(len(trials))]


def disagreements(trials):
    """The labels of those that the two widths place differently with the mend typed in, and both answers."""
    both = zip(trials, answers(trials, "i386"), answers(trials, "x86-64"), strict=True)
    return [(one.label, here, there) for one, here, there in both if here != there]


# ------------------------------------------------------------------------------------- sources at random

BEFORE = """typedef u64 compat_u64 __attribute__((aligned(4))); typedef u64 low_u64 __attribute__((aligned(2)));
enum e { ONE, TWO };
"""
COMMON = ("u8 {}", "u16 {}", "u32 {}", "u64 {}", "s64 {}", "long {}", "void *{}", "u8 {}[3]", "double {}", "u32 {}:3")
COMMON += ("compat_u64 {}", "size_t {}")
RARE = """unsigned long {}|void *{}[2]|float {}|long double {}|_Complex double {}|compat_u64 {}[2]|low_u64 {}|u64 {}[3]
|long {}[3]|long {}[2][2]|u64 {}:40|long {}:5|enum e {}|__aligned_u64 {}|s64 {} __attribute__((aligned(8)))|double {}[2]
|u64 {} __attribute__((packed))|double {} __attribute__((aligned(64)))|u8 {}[sizeof(long)]|u8 {}[17 - sizeof(void *)]
|struct {{ u64 in_{}; u32 more_{}; }} {}|union {{ u64 in_{}; u8 more_{}[12]; }}|struct {{ u32 x_{}; u64 y_{}; }}
""".replace("\n", "").split("|")
FLEXIBLE = ("u64 {}[];", "u8 {}[];", "double {}[];", "long {}[];")
ATTRIBUTES = ("__attribute__((packed))", "__attribute__((aligned(4)))", "__attribute__((aligned(16)))")
NAMES = ("pad", "pad2", "pad3", "d", *(f"m{i}" for i in range(8)))


def source(rng):
    """Three records, of which the later can contain the earlier."""
    pool = rng.sample(COMMON, rng.randint(2, 5)) + rng.sample(RARE, rng.choice([0, 0, 0, 1, 2, 3]))
    return BEFORE + "".join(random_record(rng, number_, pool) for number_ in range(3))


def random_record(rng, number_, pool):
    earlier = [f"struct s{i} {{}}{array}" for i in range(number_) for array in ("", "[2]")]
    names = iter(rng.sample(NAMES, len(NAMES)))
    members = []
    for _ in range(rng.randint(1, 5)):
        text, name = rng.choice(earlier if earlier and rng.random() < 0.3 else pool), next(names)
        members.append(text.format(*[name] * text.count("{}")) + ";")
    body = " ".join(members)
    if rng.random() < 0.2:
        body = f"union {{ {body} }} v;"
    elif rng.random() < 0.12:
        body += rng.choice(FLEXIBLE).format(next(names))
    attribute = rng.choice(ATTRIBUTES) if rng.random() < 0.25 else ""
    record = f"struct s{number_} {{ {body} }} {attribute};\n"
    pack = rng.choice([2, 4]) if rng.random() < 0.15 else 0
    return f"#pragma pack(push, {pack})\n{record}#pragma pack(pop)\n" if pack else record
