"""The `kernelnotes` command.

Exit status: 0, 2 for bad usage or bad input, 1 for everything else that went wrong; what went wrong is on stderr.
Only typer is imported here; a command imports what it needs when it runs, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

import kernelnotes
from kernelnotes.errors import BadInput, KernelNotesError

if TYPE_CHECKING:
    from kernelnotes.abi import Abi
    from kernelnotes.btf import Types
    from kernelnotes.cdecl import Preprocess
    from kernelnotes.layout import Layout
    from kernelnotes.live.machine import Ability
    from kernelnotes.repair import Snapshot
    from kernelnotes.traces import Chunks


class Commands(TyperGroup):
    """A group of commands that turns our errors into one line on stderr and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; a KernelNotesError ends it."""
        try:
            return super().invoke(ctx)
        except KernelNotesError as e:
            print(f"kernelnotes: {e}", file=sys.stderr)
            raise SystemExit(2 if isinstance(e, BadInput) else 1) from e


def group(**settings: Any) -> typer.Typer:
    """A group of commands; the whole command is one, `kernelnotes refault` and its like hang below it."""
    return typer.Typer(
        cls=Commands,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        **settings,
    )


main = group(help="Three kernel mechanisms of May 2012, to run, measure and take apart.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"kernelnotes {kernelnotes.__version__}")
        raise typer.Exit


@main.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@main.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what this machine can do, found by trying it, and how to get the rest."""
    from kernelnotes.live import machine

    abilities = machine.examine()
    if as_json:
        print(json.dumps([asdict(a) for a in abilities], indent=2))
        return
    who = "" if not hasattr(os, "geteuid") else ", as root" if os.geteuid() == 0 else ", as an ordinary user"
    print(
        f"{platform.system()} {platform.release()} on {platform.machine()}, Python {platform.python_version()}{who}\n"
    )
    width = min(100, shutil.get_terminal_size((100, 24)).columns)
    print("\n".join(line for a in abilities for line in _rows(a, width)))


Source = Annotated[Path | None, typer.Argument(help="C source, or - for standard input.")]
Struct = Annotated[str, typer.Option("--struct", help="Only this record.")]
Abis = Annotated[list[str] | None, typer.Option("--abi", help="An ABI; may be given more than once.")]
Includes = Annotated[list[str] | None, typer.Option("--include", "-I", help="Where #include looks.")]
Btf = Annotated[str, typer.Option("--btf", help="Instead of FILE: this record as the running kernel has it.")]
Module = Annotated[str, typer.Option("--module", help="With --btf: of this loaded module.")]
BtfFile = Annotated[Path | None, typer.Option("--btf-file", help="With --btf: from this file, not the running kernel.")]
Command = Annotated[str, typer.Option("--cpp", help='An external preprocessor, such as "gcc".')]


@main.command()
def layout(
    file: Source = None,
    struct: Struct = "",
    abi: Abis = None,
    include: Includes = None,
    cpp: Command = "",
    btf: Btf = "",
    module: Module = "",
    btf_file: BtfFile = None,
    as_json: AsJson = False,
) -> None:
    """Show where each ABI places the members of the records of a C source (default: x86-64).

    With --btf NAME, where the running kernel has them; with --abi, where its declaration would put them elsewhere.
    """
    from kernelnotes import layout as layouts

    if (file is None) == (not btf):
        raise BadInput("layout needs either a FILE of C source or --btf NAME")
    if btf and (struct or include or cpp):
        raise BadInput("--struct, --include and --cpp are for a FILE of C source, not for --btf")
    if (module or btf_file) and (not btf or (module and btf_file)):
        raise BadInput("--module or --btf-file says where --btf NAME looks, and only one of them")
    if file:
        made = _declared(file, struct, abi or ["x86-64"], include or [], cpp)
    else:
        made = _types(module, btf_file).all(btf)
        if abi:
            made = [layouts.layout(one.record, name) for one in made for name in abi]
    print(json.dumps([one.as_dict() for one in made], indent=2) if as_json else "\n\n".join(map(_shown, made)))


def _declared(file: Path, struct: str, abis: list[str], include: list[str], cpp: str) -> list[Layout]:
    # Record by record, on each ABI; includes are read with the macros that a compiler for that ABI defines.
    from kernelnotes import cdecl
    from kernelnotes import layout as layouts
    from kernelnotes.abi import find

    source, known = _source(file), cdecl.Known()
    made: dict[str, list[Layout]] = {}
    for abi in abis:
        defines = cdecl.predefined(abi) if include and not cpp else {}
        for_abi = _for_abi(cpp)
        preprocessor = for_abi(find(abi)) if for_abi else None
        found = cdecl.Reader(defines, include, preprocessor, known).parse(source, str(file))
        try:
            wanted = [found[struct]] if struct else list(found.values())
        except KeyError:
            raise BadInput(f"{file}: no record {struct!r}, but {', '.join(found) or 'none at all'}") from None
        for record in wanted:
            made.setdefault(str(record), []).append(layouts.layout(record, abi))
    return [one for ones in made.values() for one in ones]


def _types(module: str, file: Path | None) -> Types:
    from kernelnotes import btf
    from kernelnotes.live.btf import types
    from kernelnotes.provenance import Provenance

    if file is None:
        return types(module)
    try:
        with file.open("rb") as opened:
            data = opened.read(btf.MOST_BYTES + 1)
        day = date.fromtimestamp(file.stat().st_mtime)
    except OSError as e:
        raise BadInput(f"{file}: {e.strerror}") from e
    return btf.read(data, provenance=Provenance("recorded", "a kernel that BTF does not name", str(file), f"{day}"))


def _shown(layout: Layout) -> str:
    # With its origin, unless it is what our rules say.
    return f"/* {layout.provenance} */\n{layout}" if layout.provenance.kind != "model" else str(layout)


@main.command()
def hazards(
    files: Annotated[list[Path], typer.Argument(help="C headers, or folders of them.")],
    abi: Abis = None,
    include: Includes = None,
    cpp: Command = "",
    as_json: AsJson = False,
) -> None:
    """List the records and ioctls that two ABIs (default: i386 and x86-64) see differently, by kind, with a mend.

    Each ABI has its headers preprocessed for itself if there is --include or --cpp; gcc gets -m32 or -m64 as needed.
    A header of a folder that cannot be read is named on stderr; a single file that cannot is bad input.
    """
    from tqdm import tqdm

    from kernelnotes import headers

    names = abi or ["i386", "x86-64"]
    if len(names) != 2:
        raise BadInput(f"hazards compares two ABIs, got {len(names)}")
    progress = tqdm(headers.below(files), unit="header", disable=None, leave=False)
    found = headers.examine(progress, names[0], names[1], include or (), _for_abi(cpp))
    for header, problem in found.refused.items():
        if Path(header) in files:
            raise BadInput(problem)
        print(f"kernelnotes: {problem}", file=sys.stderr)
    if as_json:
        print(json.dumps([hazard._asdict() for hazard in found.hazards], indent=2))
        return
    for hazard in found.hazards:
        pair = map(hex, hazard.numbers) if hazard.numbers else map(str, hazard.sizes)
        print(f"{hazard.record:<40} {hazard.kind:<20} {' / '.join(pair):>23}  {hazard.header}")
        print(f"{'':<8}{hazard.mend or 'no mend found'}")


autofs = group(help="The packet of autofs: decode recorded ones, see who reads it and who hangs, be the daemon.")
main.add_typer(autofs, name="autofs")


@autofs.command()
def decode(
    file: Annotated[Path, typer.Argument(help="Raw bytes of one or more packets, or - for standard input.")],
    abi: Annotated[str, typer.Option("--abi", help="Of the kernel that wrote them, or of who cut them.")],
    as_json: AsJson = False,
) -> None:
    """Show the packets that lie one behind the other in a file.

    Where there is none the record is called unknown, with the reason; what is cut short is bad input.
    """
    from kernelnotes.autofs import packets

    try:
        with sys.stdin.buffer if str(file) == "-" else file.open("rb") as opened:
            data = opened.read(packets.MOST_BYTES + 1)
    except OSError as e:
        raise BadInput(f"{file}: {e.strerror}") from e
    if not data:
        raise BadInput(f"{file}: empty, expected at least one packet")
    try:
        found = packets.decode_stream(data, abi)
    except BadInput as e:
        raise BadInput(f"{file}: {e}") from e
    if as_json:
        print(json.dumps([packet.as_dict() for packet in found], indent=2))
        return
    for packet in found:
        told = packet.as_dict()
        print(f"{told.pop('type')}, protocol {told.pop('proto')}")
        told["name"] = str(told.get("name", "")).rstrip("\0")  # an unknown record has all 256 bytes
        print("".join(f"    {name:<8} {value!r}\n" for name, value in told.items()), end="")


@autofs.command()
def matrix(as_json: AsJson = False) -> None:
    """Compute what each kernel did to each reader, 32/32, 64/64 and 32-on-64: ok, hang, garbage.

    The table is of requests one after another, with the bytes written and wanted; --json has all, with their events.
    """
    from kernelnotes import autofs

    rows = [
        autofs.play(kernel, reader, mode, schedule)
        for kernel in autofs.KERNELS.values()
        for reader in autofs.READERS.values()
        for mode in autofs.MODES.values()
        for schedule in ("sequential", "burst")
    ]
    if as_json:
        print(json.dumps([row.as_dict() for row in rows], indent=2))
        return
    for mode in autofs.MODES:
        print(f"{mode:<16}" + "".join(f"{reader:<20}" for reader in autofs.READERS).rstrip())
        for kernel in autofs.KERNELS:
            cells = [r for r in rows if (r.kernel, r.mode, r.schedule) == (kernel, mode, "sequential")]
            told = [f"{cell.verdict} ({cell.writes}/{cell.wants})" for cell in cells]
            print(f"  {kernel:<14}" + "".join(f"{cell:<20}" for cell in told).rstrip())
        print()
    print("model: of each cell what first went wrong, and the bytes written and wanted")


@autofs.command()
def mount(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="An existing folder.")],
    map_file: Annotated[Path, typer.Option("--map", help="Lines of: name, blanks, an absolute path or tmpfs.")],
    timeout: Annotated[
        int, typer.Option("--timeout", help="Seconds without use until it is unmounted; 0: never.")
    ] = 60,
) -> None:
    """Be the automounter of DIR until Ctrl-C, and print what kernel and daemon say to each other.

    A name of the map is mounted when somebody asks for it, from another terminal or with setsid: who belongs to the
    daemon's own process group triggers nothing.  What begins with # in a map is a comment.  A daemon that was killed
    leaves its mount: start it again on the same DIR, or `umount -R DIR`.
    """
    from kernelnotes.live import machine

    machine.require("autofs")
    from kernelnotes.live.autofs import Automount, read_map

    served, told = Automount(folder, read_map(map_file).get, timeout), 0
    try:
        with served:
            for event in served.follow():
                print(event, flush=True)
                told += 1
    except (KeyboardInterrupt, SystemExit):  # the usual end
        print(*served.log.events[told:], sep="\n")


refault = group(help="Page caches: replay a trace under the rules of a kernel, measure or record the running one.")
main.add_typer(refault, name="refault")

TraceFile = Annotated[Path, typer.Argument(metavar="TRACE", help="A trace of any format that is known here.")]
Format = Annotated[str, typer.Option("--format", help="Its format, if it is not to be recognised by content.")]
MemoryPages = Annotated[int, typer.Option("--memory", min=1, help="Pages of memory.")]


@refault.command()
def replay(
    trace: TraceFile,
    memory: MemoryPages,
    rules: Annotated[list[str] | None, typer.Option("--rules", help="May be given more than once.")] = None,
    format: Format = "",
    as_json: AsJson = False,
) -> None:
    """Send a trace through a memory under rules: faults, refaults, activations.  In parts: it may be of any length."""
    from kernelnotes import refault

    parts, rows = _open_trace(trace, format), []
    for name in rules or ["linux-6.18"]:
        told = refault.replay(parts, memory, name, keep="counts")
        rows.append(told.summary() | {"miss_ratio": told.miss_ratio})
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{trace}: {rows[0]['accesses']:,} accesses, memory {memory:,} pages (model)\n")
    columns = ("faults", "refaults", "activations", "refault_activations", "evictions", "miss_ratio")
    print(f"{'rules':<22}" + "".join(f"{name:>{max(12, len(name) + 2)}}" for name in columns))
    for row in rows:
        cells = (f"{row[name]:.4f}" if name == "miss_ratio" else f"{row[name]:,}" for name in columns)
        told_row = (f"{cell:>{max(12, len(name) + 2)}}" for name, cell in zip(columns, cells, strict=True))
        print(f"{row['rules']:<22}" + "".join(told_row))


@refault.command()
def curve(
    trace: TraceFile,
    sample: Annotated[float, typer.Option("--sample", help="Share of the pages to look at, or how many.")] = 1.0,
    sizes: Annotated[list[int] | None, typer.Option("--size", help="Pages; may be given more than once.")] = None,
    format: Format = "",
    as_json: AsJson = False,
) -> None:
    """The miss ratio of LRU at every size, in one pass; with --sample an estimate, and its error."""
    from kernelnotes import curves

    frame = curves.miss_ratio(_open_trace(trace, format), sizes or None, sample)
    if not sizes and not as_json:
        frame = frame.iloc[sorted({round(i * (len(frame) - 1) / 19) for i in range(20)})]
    if as_json:
        print(json.dumps(frame.reset_index().to_dict("records"), indent=2))
        return
    print(frame.to_string(float_format=lambda number: f"{number:.4f}"))


@refault.command()
def measure(
    trace: TraceFile,
    memory: MemoryPages,
    sample: Annotated[int, typer.Option("--sample", min=0, help="Read memory.stat each so many accesses.")] = 0,
    format: Format = "",
    as_json: AsJson = False,
) -> None:
    """Read the pages of a trace on this machine, in a memory cgroup, beside what the model says of that run."""
    from kernelnotes.live import machine

    machine.require("cgroup memory")
    from kernelnotes.live.refault import measure

    loaded = _open_trace(trace, format).trace()
    found = measure(loaded, memory, sample=sample, progress=not as_json)
    told = found.predicted(loaded)
    names = ("faults", "refaults", "evictions")
    row: dict[str, Any] = {
        "origin": str(found.provenance),
        "measured": {name: getattr(found, name) for name in names},
        "predicted": {name: [int(told[name].min()), int(told[name].max())] for name in names},
        "hit_us": found.hit_us,
        "miss_us": found.miss_us,
    }
    if as_json:
        print(json.dumps(row, indent=2))
        return
    print(f"{found.provenance}\n\n{'':<12}{'measured':>12}   linux-6.18 (model)")
    for name in names:
        low, high = row["predicted"][name]
        print(f"{name:<12}{getattr(found, name):>12,}   {low:,}" + (f" to {high:,}" if high != low else ""))
    print(f"\na hit took {found.hit_us:.1f} us, a miss {found.miss_us:.1f} us")


@refault.command()
def record(
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND", help="What to run.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write; recordings are gzipped.")],
    memory: Annotated[int, typer.Option("--memory", min=0, help="Limit in pages; 0: all of the machine's.")] = 0,
    cold: Annotated[
        list[Path] | None, typer.Option("--cold", help="Drop what is cached of this file or folder.")
    ] = None,
    buffer_mb: Annotated[int, typer.Option("--buffer", min=1, help="MiB of each of the kernel's buffers.")] = 64,
    as_json: AsJson = False,
) -> None:
    """Record the page accesses of a command and its children, then replay them beside what the kernel did."""
    from kernelnotes import recordings, refault
    from kernelnotes.live import machine

    machine.require("cgroup memory")
    machine.require("filemap events")
    from kernelnotes.live.refault import record

    pages = memory or os.sysconf("SC_PHYS_PAGES")
    if not output.absolute().parent.is_dir():
        raise BadInput(f"{output}: there is no folder {output.parent}")
    found = record(command, pages, cold=cold or [], buffer_mb=buffer_mb, progress=not as_json)
    recordings.write(found, output)
    frame = refault.against(found)
    if as_json:
        print(json.dumps({"counts": found.counts(), "lost": found.lost, **frame.to_dict("index")}, indent=2))
        return
    lost = f", {found.lost:,} LOST: use a larger --buffer" if found.lost else ", none lost"
    print(f"{output}: {len(found):,} events{lost}; {found.provenance}\n")
    print(f"beside linux-6.18 with room for {frame.attrs['memory']:,} pages (model, no mapped pages):\n")
    print(frame.to_string(float_format=lambda number: f"{number:+.1%}"))


def _open_trace(path: Path, format: str) -> Chunks:
    from kernelnotes import traces

    try:
        return traces.open(path, format or None)
    except OSError as e:
        raise BadInput(f"{path}: {e.strerror}") from e


repair = group(help="TCP connections, live: see one move between hosts; dump one into a file, restore it elsewhere.")
main.add_typer(repair, name="repair")

Pid = Annotated[int, typer.Option("--pid", min=1, help="The process that has it (see `ss -tp`).")]
Fd = Annotated[int, typer.Option("--fd", min=0, help="The socket's file descriptor in that process.")]
SnapshotFile = Annotated[Path, typer.Argument(metavar="FILE", help="What `dump` wrote.")]


@repair.command()
def demo(
    moves: Annotated[int, typer.Option("--moves", min=1, max=100, help="How often it moves.")] = 8,
    as_json: AsJson = False,
) -> None:
    """Move a live download between two hosts made of namespaces, check every byte, show the packets around a move.

    Needs root, or the right to make namespaces of one's own.  Ends with status 1 unless every byte arrived unharmed.
    """
    from kernelnotes.live import repair_scenes
    from kernelnotes.views import repair as pictures

    def progress(text: str) -> None:
        print(text, file=sys.stderr if as_json else sys.stdout, flush=True)

    told = repair_scenes.played("move", str(moves), progress=progress, more_s=2.0 * moves)
    move = repair_scenes.made_move(told)
    if as_json:
        print(json.dumps({"origin": str(move.provenance), **told}, indent=2))
    else:
        packets, marks = pictures.around(move)
        print("\nthe first move, packet by packet (numbers count from the first one shown):\n")
        for event in pictures.events(packets, marks):
            print(f"{1000 * event.at:>10,.3f} ms   {pictures.in_words(event)}")
        right = "every byte arrived once and in its place" if move.whole else "BYTES WERE LOST OR DOUBLED"
        print(f"\n{move.bytes:,} bytes downloaded, {len(move.moves)} moves: {right} (SHA-256), {move.resets} resets")
        print(move.provenance)
    if not move.whole or move.resets:
        raise typer.Exit(1)


@repair.command()
def dump(
    pid: Pid,
    fd: Fd,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="A new file.")],
    peer: Annotated[
        tuple[str, int] | None, typer.Option("--peer", metavar="ADDRESS PORT", help="Where the kernel forgot it.")
    ] = None,
    guard: Annotated[
        bool, typer.Option("--guard/--no-guard", help="Drop what the peer sends until FILE is restored on this host.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Take a connection out of a process into FILE.  The peer notices nothing, and can wait; the process has lost it.

    Then wait, and drop what the peer sends, until FILE was restored here: without that, and while the connection's
    address is still on this host, the peer's next packet is answered with a reset.  Ctrl-C ends the waiting.  If
    anything fails, the connection goes on and there is no FILE.
    """
    from kernelnotes.live import machine
    from kernelnotes.live.handover import hand_over
    from kernelnotes.live.repair import take

    machine.require("tcp repair")
    with take(pid, fd) as sock, hand_over(sock, output, peer) as snapshot:
        sock.close()
        try:
            _show_snapshot(snapshot, as_json)
            if guard:
                print(f"kernelnotes: until {output} is restored here, or Ctrl-C when it is elsewhere", file=sys.stderr)
            while guard and output.exists():
                time.sleep(0.02)
        except (KeyboardInterrupt, SystemExit):
            print(f"kernelnotes: no longer guarded; the connection is in {output}", file=sys.stderr)


@repair.command()
def restore(
    file: SnapshotFile,
    command: Annotated[list[str], typer.Argument(metavar="COMMAND", help="A program, its arguments, behind --.")],
    probe: Annotated[
        bool, typer.Option("--probe/--no-probe", help="Tell the peer at once, with a window probe.")
    ] = True,
) -> None:
    """Restore the connection of FILE, once, and run COMMAND with it as its standard input and output.

    The connection's address must be on this host.  If it cannot be restored, FILE stays as it was and COMMAND does not
    run.
    """
    from kernelnotes.live import machine
    from kernelnotes.live import repair as live
    from kernelnotes.live.handover import claimed

    program = shutil.which(command[0])
    if program is None:
        raise BadInput(f"there is no program {command[0]!r}")
    machine.require("tcp repair")
    with claimed(file) as snapshot:
        sock = live.restore(snapshot, probe=probe)
    os.dup2(sock.fileno(), 0)
    os.dup2(sock.fileno(), 1)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # as a program that Python did not start has it
    os.execv(program, command)


@repair.command()
def show(file: SnapshotFile, as_json: AsJson = False) -> None:
    """Show the connection in FILE, which stays as it is."""
    from kernelnotes.live.handover import load

    _show_snapshot(load(file), as_json)


@repair.command()
def thaw(pid: Pid, fd: Fd) -> None:
    """Let a connection go on that somebody left in repair mode: who dumped it was killed, for instance."""
    from kernelnotes.live.repair import take
    from kernelnotes.live.repair import thaw as end_repair

    with take(pid, fd) as sock:
        end_repair(sock)


def _show_snapshot(s: Snapshot, as_json: bool) -> None:
    told = s.as_dict()
    width = max(map(len, told))
    lines = [f"{name:<{width}}  {value}" for name, value in told.items() if value not in (None, {}, "")]
    print(json.dumps(told, indent=2) if as_json else "\n".join(lines), flush=True)


WIDTH_FLAGS = {"x86-64": "-m64", "i386": "-m32", "x32": "-mx32"}  # so that the preprocessor sees what the ABI sees


@main.command()
def quiz(
    topic: Annotated[str, typer.Argument(metavar="refault|layout|repair")],
    seed: Annotated[int | None, typer.Option("--seed", help="Which problem; by default any.")] = None,
    solve: Annotated[bool, typer.Option("--solve", help="Show the steps and the answer.")] = False,
    kind: Annotated[str, typer.Option("--kind", help="Which kind of problem; by default the seed chooses.")] = "",
    sheet: Annotated[int | None, typer.Option("--sheet", help="So many problems on a sheet to print.")] = None,
    format: Annotated[str, typer.Option("--format", help="Of the sheet: md (the default), html or pdf.")] = "",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File for the sheet; standard output.")] = None,
) -> None:
    """Ask a question; the same seed asks it again, --solve answers it step by step.

    A sheet has a problem for each seed from --seed on, every kind in turn, and with --solve the answers behind them.
    """
    import random

    from kernelnotes import quiz
    from kernelnotes.quiz import sheets

    chosen = random.randrange(100_000) if seed is None else seed
    if sheet is not None:
        if kind:
            raise BadInput("--kind is for one problem, a sheet has every kind in turn")
        if format == "pdf" and output is None and sys.stdout.isatty():
            raise BadInput("a PDF is nothing for a terminal: say -o FILE")
        if format not in ("", "pdf", *sheets.FORMATS):
            raise BadInput(f"format is {format!r}, expected one of md, html, pdf")
        page = sheets.sheet(quiz.problems(topic, chosen, sheet), "html" if format == "pdf" else format or "md", solve)
        made = page.encode()
        if format == "pdf":
            from kernelnotes.live import printing

            made = printing.pdf(page)
        if output is None:
            sys.stdout.buffer.write(made)
            return
        try:
            output.write_bytes(made)
        except OSError as e:
            raise BadInput(f"{output}: {e.strerror}") from e
        return
    if output or format:
        raise BadInput("--output and --format are for a sheet, see --sheet")
    print(sheets.text(quiz.problem(topic, chosen, kind), solve, min(100, shutil.get_terminal_size((100, 24)).columns)))
    if not solve:
        print(f"\nThe answer: kernelnotes quiz {topic} --seed {chosen}{f' --kind {kind}' if kind else ''} --solve")


def _for_abi(cpp: str) -> Callable[[Abi], Preprocess] | None:
    from kernelnotes.cdecl import predefined
    from kernelnotes.live.cpp import Cpp

    def made(abi: Abi) -> Preprocess:
        if abi.name in WIDTH_FLAGS:
            return Cpp(f"{cpp} {WIDTH_FLAGS[abi.name]}")
        # The program knows its own machine only: it is told the macros of the other.
        command, macros = Cpp(f"{cpp} -undef"), predefined(abi)
        return lambda source, filename, defines, include: command(source, filename, macros | dict(defines), include)

    return made if cpp else None


def _source(file: Path) -> str:
    # The text of a file that the user names.
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(errors="surrogateescape")
    except OSError as e:
        raise BadInput(f"{file}: {e.strerror}") from e


def _rows(ability: Ability, width: int) -> list[str]:
    """The lines of one ability in the doctor's table; the second and third column wrap, the first is the name."""
    start = f"{ability.name:<16} {'yes' if ability.available else 'no':<4}"
    told = [ability.detail] if ability.available else [ability.reason, f"remedy: {ability.remedy}"]
    lines = []
    for text in told:
        lines += textwrap.wrap(text, width, initial_indent=start, subsequent_indent=" " * 21, break_long_words=False)
        start = " " * 21
    return lines


if __name__ == "__main__":
    main()
