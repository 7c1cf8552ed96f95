"""`kernelnotes autofs`: packets decoded, the matrix, and a daemon."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from kernelnotes.cli.base import AsJson, group
from kernelnotes.errors import BadInput

commands = group(help="The packet of autofs: decode recorded ones, see who reads it and who hangs, be the daemon.")


@commands.command()
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


@commands.command()
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


@commands.command()
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
