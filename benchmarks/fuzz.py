"""Malformed input for whatever reads text or bytes: nothing but BadInput may come out, soon, and at no great cost.

    python benchmarks/fuzz.py [parse] [unpack] [btf] [hazards] [--seconds 30] [--seed 2026] [--keep FOLDER]

    parse    C text through `cdecl.parse`, then each record through `layout` on two ABIs
    unpack   a record, an ABI and bytes through `unpack`; what is packed again must read the same
    btf      bytes through `btf.read`, then each record as it is and on another ABI
    hazards  C text through `cdecl.parse`, then what two ABIs place differently, and the mends

Inputs grow from the C text in tests/, those of btf from what gcc and pahole make of it.  Where `atheris` is installed
(pip install atheris; no other use for it here) it looks for inputs that reach new code; otherwise a loop of our own
keeps those with a new answer.  A finding is another exception than BadInput, more than 2 s for one input, or more than
500 MB.  Prints each kind of finding once with an input, and a line per target; exit status 1 with any finding.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
MOST_SECONDS, MOST_BYTES = 2.0, 500 << 20
LONGEST = 4096  # bytes of one input
ABIS = ("i386", "win64", "s390x", "m68k", "x86-64", "aarch64", "arm-oabi", "mips-n32")
WORDS = """struct union enum typedef int char short long unsigned signed float double _Bool void const volatile static
extern inline sizeof _Alignof offsetof __builtin_offsetof typeof _Alignas alignas _Static_assert _Atomic
_Complex __int128 __attribute__ packed aligned mode vector_size __packed __aligned __u8 __u16 __u32 __u64
__aligned_u64 size_t wchar_t asm __asm__ __extension__ __struct_group __DECLARE_FLEX_ARRAY #define #undef
#if #ifdef #else #elif #endif #include #line #pragma #error pack push pop defined __VA_ARGS__ __FILE__
__LINE__ 0 1 2 3 8 -1 0x7fffffff 4294967295UL 9223372036854775807LL 18446744073709551615ULL 'a' '\\x' "a" <<
>> && || == != <= -> ... ## /* */ // { } ( ) [ ] [[ ]] ; : , * + - ~ ? = & | ^ % ! \\ ' \"""".split()  # noqa: SIM905
WORDS.append("\n")


class TooSlow(BaseException):
    """One input took too long; no `except Exception` on the way may hold it up."""


# ------------------------------------------------------------------------------------- targets


def parse(data: bytes) -> str:
    """Records and their layouts."""
    from kernelnotes import cdecl, layout
    from kernelnotes.errors import BadInput

    try:
        records = cdecl.parse(data.decode(errors="replace"))
    except BadInput as e:
        return str(e)
    answers = []
    for record in records.values():
        for abi in ("i386", "win64"):
            try:
                here = layout.layout(record, abi)
                answers.append(f"{here.size} {here.holes} {here}")
            except BadInput as e:
                answers.append(str(e))
    return " ".join(answers)


def unpack(data: bytes) -> str:
    """A byte for the ABI, C text up to a NUL, and the bytes of its last record; also with a byte too many."""
    from kernelnotes import cdecl, layout
    from kernelnotes.errors import BadInput

    text, _, content = data[1:].partition(b"\0")
    try:
        *_, record = cdecl.parse(text.decode(errors="replace")).values()
        here = layout.layout(record, ABIS[data[0] % len(ABIS)])
    except ValueError as e:  # BadInput, and of a text without a record
        return str(e)
    try:
        content = content.ljust(here.size, b"\xa5")[: here.size] if here.size <= 1 << 16 else content
        values = here.unpack(content)
        again = here.unpack(here.pack(values))
    except BadInput as e:
        return str(e)
    if repr(again) != repr(values):
        raise AssertionError(f"{values} became {again}")
    try:
        here.unpack(content + b"\0")
    except BadInput:
        return f"{here.size} {here.abi.endian} {list(map(type, values.values()))}"
    raise AssertionError("a byte too many was read")


def btf(data: bytes) -> str:
    """Types and, of the first ones, their layouts; one that cannot be laid out does not spoil the others."""
    from kernelnotes import btf, layout
    from kernelnotes.errors import BadInput

    try:
        types = btf.read(data)
    except BadInput as e:
        return str(e)
    answers = [types.abi.name]
    for name in islice(types, 20):
        try:
            here = types[name]
            answers.append(f"{here.holes} {here} {len(here.as_dict())}")
            answers.append(str(layout.layout(types.record(name), "m68k")))
        except BadInput as e:
            answers.append(str(e))
    return " ".join(answers)


def hazards(data: bytes) -> str:
    """The hazards, mends included, between two ABIs."""
    from kernelnotes import cdecl
    from kernelnotes.abi import find
    from kernelnotes.errors import BadInput
    from kernelnotes.layout.hazards import both_have, compared, pairs

    try:
        records = cdecl.parse(data.decode(errors="replace"))
    except BadInput as e:
        return str(e)
    found = compared(pairs(records, None), find("i386"), find("x86-64"), both_have(records, None))
    return " ".join(f"{hazard.kind} {hazard.mend}" for hazard in found)


TARGETS: dict[str, Callable[[bytes], str]] = {"parse": parse, "unpack": unpack, "btf": btf, "hazards": hazards}


def corpus(target: str) -> list[bytes]:
    """What the inputs grow from: the C text in the tests and their data."""
    texts = {case["source"] for case in json.loads((ROOT / "tests/data/layout_cases.json").read_text())["cases"]}
    for file in sorted((ROOT / "tests").glob("test_*.py")):
        constants = (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant))
        texts |= {node.value for node in constants if isinstance(node.value, str) and re.search(r"[;{]\s", node.value)}
    if target == "btf":
        return list(encoded(sorted(texts)))
    found = sorted(text.encode()[:LONGEST] for text in texts)
    if target == "unpack":
        return [bytes([i % len(ABIS)]) + text + b"\0" + bytes(range(64)) for i, text in enumerate(found)]
    return found


def encoded(texts: list[str]) -> Iterator[bytes]:
    """The BTF of each text that gcc compiles and pahole encodes: it refuses an object without any type."""
    flags = ["-w", "-g", "-gdwarf-4", "-fno-eliminate-unused-debug-types", "-c", "-xc", "-o", "object", "-"]
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made"
        for text in texts:
            made.unlink(missing_ok=True)
            if subprocess.run(["gcc", *flags], input=text, text=True, capture_output=True, cwd=folder).returncode == 0:
                subprocess.run(["pahole", f"--btf_encode_detached={made}", "object"], capture_output=True, cwd=folder)
            if made.exists() and made.stat().st_size <= LONGEST:
                yield made.read_bytes()


# ------------------------------------------------------------------------------------- one input


class Findings:
    """What went wrong, each kind once, and how many inputs there were."""

    def __init__(self, target: str, keep: Path) -> None:
        self.target, self.keep, self.inputs = target, keep, 0
        self.kinds: dict[str, int] = {}
        signal.signal(signal.SIGALRM, self._alarm)

    @staticmethod
    def _alarm(number: int, frame: FrameType | None) -> NoReturn:
        raise TooSlow

    def try_one(self, data: bytes) -> str:
        """Run the target on the input; its answer, or the kind of the finding."""
        self.inputs += 1
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS)
        try:
            answer = TARGETS[self.target](data)
        except (Exception, TooSlow) as e:
            answer = self._found(f"{type(e).__name__} at {_where(e)}", data)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before << 10
        return self._found(f"{grown >> 20} MB", data) if grown > MOST_BYTES else answer

    def _found(self, kind: str, data: bytes) -> str:
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        if self.kinds[kind] == 1:
            file = self.keep / f"{self.target}-{len(self.kinds)}"
            file.write_bytes(data)
            print(f"finding: {kind}, input kept as {file}: {data[:100]!r}", flush=True)
        return kind


def summary(target: str, how: str, seconds: float, inputs: int, reached: str, kinds: int) -> str:
    """The line per target."""
    rate = inputs / seconds
    return f"{target}: {how}, {seconds:.0f} s, {inputs} inputs, {rate:.0f}/s, {reached}, {kinds} kinds of findings"


def _where(e: BaseException) -> str:
    # The last line of the package that was running; of what takes long, any line may be: there the first functions.
    frames = [f for f in traceback.extract_tb(e.__traceback__) if "/kernelnotes/" in f.filename]
    if isinstance(e, TooSlow):
        return " > ".join(f.name for f in frames[:4])
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "the target itself"


# ------------------------------------------------------------------------------------- with and without atheris


def by_atheris(target: str, options: argparse.Namespace, keep: Path) -> int:
    """In a process of its own, since libFuzzer ends the process that it runs in."""
    with tempfile.TemporaryDirectory() as folder:
        seeds, words = Path(folder) / "corpus", Path(folder) / "words"
        seeds.mkdir()
        for number, data in enumerate(corpus(target)):
            (seeds / str(number)).write_bytes(data)
        escaped = ["".join(map("\\x{:02x}".format, word.encode())) for word in WORDS]
        words.write_text("".join(f'"{word}"\n' for word in escaped))
        flags = [
            f"-max_total_time={options.seconds}",
            f"-max_len={LONGEST}",
            f"-seed={options.seed}",
            "-rss_limit_mb=0",
        ]
        flags += [f"-dict={words}", f"-artifact_prefix={keep}/", str(seeds)]
        command = [sys.executable, __file__, "--child", target, str(keep), *flags]
        # `TooSlow` ends what Python runs; should C code hang, this ends all.
        ran = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=2 * options.seconds + 60
        )
    done, covered = re.search(r"Done (\d+) runs", ran.stderr), re.findall(r"cov: (\d+)", ran.stderr)
    if ran.returncode or not done or not covered:
        print(ran.stdout, ran.stderr[-2000:], sep="\n")
        return 1
    print(ran.stdout, end="")
    kinds = len(ran.stdout.splitlines())
    print(summary(target, "atheris", options.seconds, int(done[1]), f"{covered[-1]} edges", kinds), flush=True)
    return int(kinds > 0)


def child(target: str, keep: str, flags: list[str]) -> None:
    """Never returns."""
    import atheris

    with atheris.instrument_imports(include=["kernelnotes", "pycparser", "pcpp"]):
        import pcpp  # noqa: F401

        import kernelnotes.btf
        import kernelnotes.cdecl.expander
        import kernelnotes.layout  # noqa: F401
    found = Findings(target, Path(keep))
    atheris.Setup([sys.argv[0], *flags], lambda data: found.try_one(data) and None)
    atheris.Fuzz()


def by_ourselves(target: str, options: argparse.Namespace, keep: Path) -> int:
    """Mutations of inputs that gave an answer of a new form, numbers and names aside."""
    found, seeds, rng = Findings(target, keep), corpus(target), random.Random(options.seed)
    pool, forms, start = [], set(), time.monotonic()
    for data in _inputs(seeds, pool, rng):
        form = re.sub(r"\d+|'[^']*'| in: .*", "", found.try_one(data))
        if form not in forms:
            forms.add(form)
            pool.append(data)
        seconds = time.monotonic() - start
        if seconds > options.seconds:
            reached = f"{len(forms)} forms of answers"
            print(summary(target, "mutations", seconds, found.inputs, reached, len(found.kinds)), flush=True)
            return int(bool(found.kinds))
    raise AssertionError("the inputs never end")


def _inputs(seeds: list[bytes], pool: list[bytes], rng: random.Random) -> Iterator[bytes]:
    yield from seeds
    while True:
        data = rng.choice(pool)
        for _ in range(1 << rng.randrange(5)):
            start = rng.randrange(len(data) + 1)
            stop = min(len(data), start + (1 << rng.randrange(8)))
            other = rng.choice(pool)
            at = rng.randrange(len(other) + 1)
            new = rng.choice(
                [
                    b"",
                    data[start:stop] * rng.choice([2, 2, 2, 100]),
                    other[at : at + (1 << rng.randrange(8))],
                    f" {rng.choice(WORDS)} ".encode(),
                    bytes([rng.randrange(256)]),
                ]
            )
            data = (data[:start] + new + data[rng.choice([start, stop]) :])[:LONGEST]
        yield data


def main() -> int:
    """Exit status 1 with any finding."""
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3], sys.argv[4:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="|".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=30, help="for each target")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--keep", type=Path, default=Path("_build/fuzz"), help="folder for the inputs of findings")
    options = parser.parse_args()
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"no target {min(unknown)!r}, but {', '.join(TARGETS)}")
    options.keep.mkdir(parents=True, exist_ok=True)
    run = by_atheris if find_spec("atheris") else by_ourselves
    return max(run(target, options, options.keep) for target in options.targets or TARGETS)


if __name__ == "__main__":
    sys.exit(main())
