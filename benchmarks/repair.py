"""How long a connection stands still: kernelnotes.live.repair beside a C program that makes the same system calls.

    python benchmarks/repair.py [--moves 2000] [--hosts 200] [--mib 64]

1. Freeze, dump, release, close, a new socket, restore, within one host: with empty queues, and with 64 KiB received
   and not read and 64 KiB sent and not acknowledged.  The floor is benchmarks/repair.c: the lock, the double read and
   the options included.  Both move the same connection, in turns of 50.  One move of each is run under strace first:
   calls, arguments and results must be the same, but for one getsockname of Python's.  The peer is behind a lock of its
   own, so that it does not answer the window probe, and the garbage collector is off.  How far Python can come at
   all tells a third figure: the same calls, recorded, by the socket's methods one after the other.
2. The same between two hosts of a lab, with the address (`live.moves`): from before freeze until it lives there.
3. Two queues of 64 MiB: the most memory that dump, to_bytes, from_bytes and restore take, in copies of the queues.

Needs root (buffers past the limit of the machine), gcc and strace.  Exit status 1 where a byte or a call is wrong, else
3 where a move takes more than 2.0 times the floor (1.8 times with queues), one between hosts more than 1 ms in the
median, or more than 3 copies are held.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import hashlib
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from difflib import unified_diff
from pathlib import Path
from typing import Any

from kernelnotes.live import repair
from kernelnotes.live.moves import move
from kernelnotes.live.netlab import Lab
from kernelnotes.repair import Snapshot, options, perform
from kernelnotes.repair.constants import AF_INET, SIOCINQ, SOL_SOCKET, SocketOption
from kernelnotes.repair.steps import LOCK, UNLOCK, Calls

SOURCE = Path(__file__).with_suffix(".c")
KIB, MIB = 1 << 10, 1 << 20
QUEUE = 64 * KIB
WANTED = {0: 2.0, QUEUE: 1.8}  # times the floor, by bytes in each queue
WANTED_BETWEEN_HOSTS_US, WANTED_COPIES = 1000, 3
TURN = 50  # moves of one side before the other one's turn

Move = Callable[[socket.socket], socket.socket]


# ------------------------------------------------------------------------------------- the two sides


def ours(sock: socket.socket) -> socket.socket:
    """The connection on a new socket of the same host."""
    with repair.freeze(sock) as frozen:
        snapshot = frozen.dump()
        frozen.release()
    sock.close()
    return repair.restore(snapshot)


class _Option(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_int) for name in ("level", "number", "size", "flags", "unset"))


ALWAYS, LATE, BY_HAND = 1, 2, 4  # as in repair.c
SET_BY_HAND = ("SO_SNDBUF", "SO_RCVBUF", "SO_BUF_LOCK", "SO_REUSEADDR")


def _row(name: str, o: options.Option) -> _Option:
    flags = ALWAYS * (o.unset is None) | LATE * o.late | BY_HAND * (name in SET_BY_HAND)
    return _Option(o.level, o.number, o.size, flags, o.unset if isinstance(o.unset, int) else 0)


class Floor:
    """repair.c, compiled and loaded into this process."""

    def __init__(self, folder: Path) -> None:
        library = folder / "floor.so"
        subprocess.run(["gcc", "-O2", "-Wall", "-shared", "-fPIC", "-o", library, SOURCE], check=True)
        self._library = ctypes.CDLL(str(library))
        rows = [_row(name, o) for name, o in options.of(AF_INET).items() if name not in options.READ_BEFORE]
        self._table = (_Option * len(rows))(*rows)
        self._library.set_options(self._table, len(rows))

    def moves(self, sock: socket.socket, count: int) -> tuple[socket.socket, list[float]]:
        """The connection after so many moves, and the seconds that each took."""
        took = (ctypes.c_int64 * count)()
        fd = self._library.moves(sock.detach(), count, took)
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, fd), [ns / 1e9 for ns in took]


def our_moves(sock: socket.socket, count: int) -> tuple[socket.socket, list[float]]:
    """The same by the library."""
    took = []
    for _ in range(count):
        start = time.perf_counter()
        sock = ours(sock)
        took.append(time.perf_counter() - start)
    return sock, took


# ------------------------------------------------------------------------------------- the connection


@contextlib.contextmanager
def pair(queued: int, buffers: int = 0) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection in a network of its own, and its peer behind a lock, each with `queued` bytes for the other.

    In the block this thread is in that network.  `buffers` are bytes of buffer at both ends.
    """
    with Lab() as lab, lab.host("one").inside():
        with socket.socket() as listener:
            _enlarge(listener, buffers)
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            sock = socket.socket()
            _enlarge(sock, buffers)
            sock.connect(listener.getsockname())
            peer, _ = listener.accept()
        for data in chunks("in", queued):
            peer.sendall(data)
        while _waiting(sock) < queued:
            time.sleep(0.01)
        perform([LOCK], repair.calls(peer))
        for data in chunks("out", queued):
            sock.sendall(data)
        with peer:
            yield sock, peer


def _waiting(sock: socket.socket) -> int:
    return int(repair.calls(sock)["ioctl"](SIOCINQ))


def _enlarge(sock: socket.socket, size: int) -> None:
    if size:
        for option in (SocketOption.SO_SNDBUFFORCE, SocketOption.SO_RCVBUFFORCE):
            sock.setsockopt(SOL_SOCKET, option, size)


def chunks(which: str, size: int) -> Iterator[bytes]:
    """So many bytes that are different in each direction, and at each place of 64."""
    for start in range(0, size, QUEUE):
        yield hashlib.sha512(f"{which} {start}".encode()).digest() * (QUEUE // 64)


def arrived(sock: socket.socket, peer: socket.socket, queued: int) -> bool:
    """True if both ends read what the other one wrote: after this the connection is closed."""
    perform([UNLOCK], repair.calls(peer))
    sock.shutdown(socket.SHUT_WR)
    digests = []
    for end in (peer, sock):
        end.settimeout(20)
        digest = hashlib.sha256()
        while part := end.recv(MIB):
            digest.update(part)
        digests.append(digest.digest())
        end.close()
    return digests == [hashlib.sha256(b"".join(chunks(which, queued))).digest() for which in ("out", "in")]


# ------------------------------------------------------------------------------------- the same calls?


def traced(queued: int, folder: Path) -> None:
    """One move by each side, announced on standard output: what runs under strace."""
    floor = Floor(folder)
    with pair(queued) as (sock, peer):
        gc.disable()
        sock, _ = our_moves(sock, 3)
        sock, _ = floor.moves(sock, 3)
        os.write(1, b"ours\n")
        sock, _ = our_moves(sock, 1)
        os.write(1, b"floor\n")
        sock, _ = floor.moves(sock, 1)
        os.write(1, b"end\n")
        sys.exit(not arrived(sock, peer, queued))


def calls_of_both(queued: int, folder: Path) -> tuple[list[str], list[str]]:
    """The system calls of one move by each side, as strace writes them, less what cannot be the same."""
    out = folder / "strace"
    command = ["strace", "-f", "-o", out, sys.executable, __file__, "--traced", str(queued)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    text = re.sub(r"^\d+ +", "", out.read_text(), flags=re.M)
    _, our, its, _ = re.split(r'^write\(1, "(?:ours|floor|end)\\n".*\n', text, flags=re.M)
    return _comparable(our), _comparable(its)


def _comparable(lines: str) -> list[str]:
    # For an object around a file descriptor Python asks for its address, to see whether it is a socket.
    return [_plain(line) for line in lines.splitlines() if not re.match(r"getsockname\(.*\[128 => 16\]", line)]


def _plain(line: str) -> str:
    line = re.sub(r"^(rt_sigaction\(\w+|getrandom\().*", r"\1", line)  # handlers, and chance
    line = re.sub(r"(TCP_INFO|TCP_TIMESTAMP), .*", r"\1", line)  # clocks
    line = re.sub(r"^(\w+)\(\d+", r"\1(fd", line)
    return re.sub(r"0x[0-9a-f]+|fd=\d+|= \d+$", "_", line)


def check(queued: int, folder: Path) -> bool:
    """Print whether both sides make the same calls."""
    our, its = calls_of_both(queued, folder)
    print(f"{_queues(queued)}: {len(our)} calls, the floor {len(its)}: {'equal' if our == its else 'DIFFERENT'}")
    if our != its:
        print("\n".join(unified_diff(its, our, "floor", "ours", lineterm="", n=1)))
    return our == its


# ------------------------------------------------------------------------------------- how long


def within_host(queued: int, count: int, floor: Floor) -> tuple[bool, bool]:
    """Print how long both sides take; whether all bytes arrived, and whether we are fast enough."""
    times: dict[str, list[float]] = {"ours": [], "floor": []}
    with pair(queued) as (sock, peer):
        sock, _ = our_moves(sock, TURN)
        sock, _ = floor.moves(sock, TURN)
        gc.disable()
        while len(times["ours"]) < count:
            for side, moves in (("ours", our_moves), ("floor", floor.moves)):
                sock, took = moves(sock, TURN)
                times[side] += took
        gc.enable()
        right = arrived(sock, peer, queued)
    middle = {side: statistics.median(took) for side, took in times.items()}
    ratio, least = middle["ours"] / middle["floor"], min(times["ours"]) / min(times["floor"])
    for side, took in times.items():
        print(f"{_queues(queued)}: {side:5} median {1e6 * middle[side]:.1f} us, least {1e6 * min(took):.1f} us")
    print(
        f"{_queues(queued)}: ratio {ratio:.2f} of {WANTED[queued]} (of the least {least:.2f}), {_verdict(right)}",
        flush=True,
    )
    return right, ratio <= WANTED[queued]


def bare(count: int) -> None:
    """Print how long the calls of a move take by Python's socket methods alone: nothing planned, read or undone.

    What was recorded of one move is called again on the next sockets.  The clock of the time stamps stands still then,
    which does not matter to a peer that hears nothing.
    """
    recorded: list[list[tuple[str, tuple[Any, ...]]]] = []

    def record(calls: Calls) -> Calls:
        kept: list[tuple[str, tuple[Any, ...]]] = []
        recorded.append(kept)
        return {name: _kept(name, call, kept) for name, call in calls.items()}

    took = []
    with pair(0) as (sock, _):
        with repair.observed(record):
            sock = ours(sock)
        source, *target = recorded
        gc.disable()
        for _ in range(count):
            new = socket.socket()
            old, made = repair.calls(sock), repair.calls(new)
            first = [(old[name], args) for name, args in source]
            last = [(made[name], args) for kept in target for name, args in kept]
            start = time.perf_counter()
            _call_all(first)
            sock.close()
            _call_all(last)
            took.append(time.perf_counter() - start)
            sock = new
        gc.enable()
        sock.close()
    print(
        f"empty queues: {len(first) + len(last)} of these calls by Python's socket methods, nothing planned or undone: "
        f"median {1e6 * statistics.median(took):.1f} us, least {1e6 * min(took):.1f} us",
        flush=True,
    )


def _kept(name: str, call: Callable[..., Any], kept: list[tuple[str, tuple[Any, ...]]]) -> Callable[..., Any]:
    def recorded(*args: Any) -> Any:
        kept.append((name, args))
        return call(*args)

    return recorded


def _call_all(calls: list[tuple[Callable[..., Any], tuple[Any, ...]]]) -> None:
    for call, args in calls:
        try:
            call(*args)
        except OSError:  # what a plan ignores; suppress() would cost as much as a call
            continue


def _queues(queued: int) -> str:
    return f"{queued // KIB} KiB + {queued // KIB} KiB" if queued else "empty queues"


def _verdict(right: bool) -> str:
    return "all bytes right" if right else "BYTES WRONG"


def between_hosts(count: int) -> tuple[bool, bool]:
    """Print how long a connection stands still that moves to another host with its address, and back."""
    took, right = [], True
    with Lab() as lab:
        here, there, peer_host = (lab.host(name) for name in ("here", "there", "peer"))
        listener = peer_host.socket()
        listener.bind((peer_host.address4, 0))
        listener.listen()
        sock = here.socket()
        sock.bind((here.address4, 0))
        sock.connect(listener.getsockname())
        peer, _ = listener.accept()
        gc.disable()
        with peer:
            for number in range(count):
                moved = move(sock, there)
                took.append(moved.freeze_us)
                sock, here, there = moved.sock, there, here
                right &= _answered(sock, peer, number)
        gc.enable()
        sock.close()
    middle, p90 = statistics.median(took), statistics.quantiles(took, n=10)[-1]
    print(
        f"between hosts, with the address: median {middle:.0f} us of {WANTED_BETWEEN_HOSTS_US}, p90 {p90:.0f} us, "
        f"most {max(took):.0f} us, {_verdict(right)}",
        flush=True,
    )
    return right, middle <= WANTED_BETWEEN_HOSTS_US


def _answered(sock: socket.socket, peer: socket.socket, number: int) -> bool:
    word = f"{number:8}".encode()
    sock.sendall(word)
    heard = peer.recv(8, socket.MSG_WAITALL)
    peer.sendall(heard)
    return sock.recv(8, socket.MSG_WAITALL) == word


# ------------------------------------------------------------------------------------- how much memory


def held(queued: int) -> None:
    """Print the most that a move of two such queues holds, through a file's bytes, in copies: a process of its own."""
    with pair(queued, buffers=4 * queued) as (sock, peer):
        before = _resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
        with repair.freeze(sock) as frozen:
            snapshot = frozen.dump()
            frozen.release()
        sock.close()
        dumped = _resident("VmHWM")
        data = snapshot.to_bytes()
        del snapshot
        snapshot = Snapshot.from_bytes(data)
        del data
        sock = repair.restore(snapshot)
        most = _resident("VmHWM")
        size = len(snapshot.recv_queue) + len(snapshot.send_queue)
        del snapshot
        print(size, (dumped - before) / size, (most - before) / size, int(arrived(sock, peer, queued)))


def _resident(name: str) -> int:
    [kib] = re.findall(rf"^{name}:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    return int(kib) * KIB


def memory(mib: int) -> tuple[bool, bool]:
    """Print it, from a process of its own."""
    ran = subprocess.run([sys.executable, __file__, "--held", str(mib * MIB)], capture_output=True, text=True)
    if ran.returncode:
        print(ran.stderr)
        return False, False
    size, dumped, most, right = map(float, ran.stdout.split())
    print(
        f"{size / MIB:.0f} MiB in two queues: dump and release hold {dumped:.2f} copies; "
        f"with to_bytes, from_bytes and restore {most:.2f} of {WANTED_COPIES}, {_verdict(bool(right))}"
    )
    return bool(right) and size == 2 * mib * MIB, most <= WANTED_COPIES


# ------------------------------------------------------------------------------------- all of it


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moves", type=int, default=2000, help="moves of each side within one host")
    parser.add_argument("--hosts", type=int, default=200, help="moves between two hosts")
    parser.add_argument("--mib", type=int, default=64, help="MiB in each of two large queues")
    parser.add_argument("--traced", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--held", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.traced is not None:
            traced(given.traced, folder)
        if given.held is not None:
            held(given.held)
            return 0
        same = [check(queued, folder) for queued in WANTED]
        floor = Floor(folder)
        done = [within_host(queued, given.moves, floor) for queued in WANTED]
        bare(given.moves)
        done += [between_hosts(given.hosts), memory(given.mib)]
    if not all(same) or not all(right for right, _ in done):
        return 1
    return 0 if all(fast for _, fast in done) else 3


if __name__ == "__main__":
    sys.exit(main())
