"""`kernelnotes refault`: traces replayed, measured and recorded."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kernelnotes.cli.base import AsJson, group
from kernelnotes.errors import BadInput

if TYPE_CHECKING:
    from kernelnotes.traces import Chunks

commands = group(help="Page caches: replay a trace under the rules of a kernel, measure or record the running one.")

TraceFile = Annotated[Path, typer.Argument(metavar="TRACE", help="A trace of any format that is known here.")]
Format = Annotated[str, typer.Option("--format", help="Its format, if it is not to be recognised by content.")]
MemoryPages = Annotated[int, typer.Option("--memory", min=1, help="Pages of memory.")]


@commands.command()
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


@commands.command()
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


@commands.command()
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


@commands.command()
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
