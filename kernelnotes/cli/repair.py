"""`kernelnotes repair`: connections moved, dumped and restored."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kernelnotes.cli.base import AsJson, group
from kernelnotes.errors import BadInput

if TYPE_CHECKING:
    from kernelnotes.repair import Snapshot

commands = group(help="TCP connections, live: see one move between hosts; dump one into a file, restore it elsewhere.")

Pid = Annotated[int, typer.Option("--pid", min=1, help="The process that has it (see `ss -tp`).")]
Fd = Annotated[int, typer.Option("--fd", min=0, help="The socket's file descriptor in that process.")]
SnapshotFile = Annotated[Path, typer.Argument(metavar="FILE", help="What `dump` wrote.")]


@commands.command()
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


@commands.command()
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


@commands.command()
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


@commands.command()
def show(file: SnapshotFile, as_json: AsJson = False) -> None:
    """Show the connection in FILE, which stays as it is."""
    from kernelnotes.live.handover import load

    _show_snapshot(load(file), as_json)


@commands.command()
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
