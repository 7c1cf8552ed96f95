"""`kernelnotes layout` and `kernelnotes hazards`: what C sources say, and what the running kernel has."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kernelnotes.cli.base import AsJson
from kernelnotes.errors import BadInput

if TYPE_CHECKING:
    from kernelnotes.abi import Abi
    from kernelnotes.btf import Types
    from kernelnotes.cdecl import Preprocess
    from kernelnotes.layout import Layout

Source = Annotated[Path | None, typer.Argument(help="C source, or - for standard input.")]
Struct = Annotated[str, typer.Option("--struct", help="Only this record.")]
Abis = Annotated[list[str] | None, typer.Option("--abi", help="An ABI; may be given more than once.")]
Includes = Annotated[list[str] | None, typer.Option("--include", "-I", help="Where #include looks.")]
Btf = Annotated[str, typer.Option("--btf", help="Instead of FILE: this record as the running kernel has it.")]
Module = Annotated[str, typer.Option("--module", help="With --btf: of this loaded module.")]
BtfFile = Annotated[Path | None, typer.Option("--btf-file", help="With --btf: from this file, not the running kernel.")]
Command = Annotated[str, typer.Option("--cpp", help='An external preprocessor, such as "gcc".')]
WIDTH_FLAGS = {"x86-64": "-m64", "i386": "-m32", "x32": "-mx32"}  # so that the preprocessor sees what the ABI sees


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
