"""A connection moved again and again between two hosts, while both ends send and read as fast as they can.

    python benchmarks/moves.py [--moves 1000] [--quick] [--loss 0.01] [--seed 1] [--control]

Four connections, over IPv4 and IPv6, with small buffers and with large ones, take an equal share of the moves each. The
switch drops a share of all TCP packets, the moving end works for a random time between two moves, and either end pauses
now and then, so that queues are found full and empty. The peer is another process.

Counted are the bytes, hashed at both ends as they are sent and as they are read; the moves that were refused, with the
step and its error; and at all three hosts every reset, and every FIN before the application's own. Exit status 1 if a
byte is lost or doubled, if a move is refused, or if there is a packet that nobody asked for.

`--control` shows what the lock and the second read are for: so many moves without them, with no lock at all and with
the address taken away as the only one, each with the windows read before and after the sequence numbers. Connections
break then; each move that is refused is counted by its reason.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import random
import select
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterator
from typing import Any
from unittest import mock

from tqdm import tqdm

from kernelnotes.errors import KernelNotesError
from kernelnotes.live.moves import Moved, address_of, move
from kernelnotes.live.netlab import Host, Lab
from kernelnotes.live.repair import freeze, prepare
from kernelnotes.repair import steps as plan
from kernelnotes.repair.constants import TcpOption
from kernelnotes.repair.segment import Flags

PERIOD = (1 << 20) + 7  # bytes after which a stream begins anew: no power of two
CHUNK = 1 << 16
BUFFERS = {"small": 4096, "large": 4 << 20}  # bytes
ADDRESSES = {"IPv4": (socket.AF_INET, "192.0.2.100"), "IPv6": (socket.AF_INET6, "2001:db8::aa")}
PORT = 80
PATIENCE_S = 30.0  # without a byte, when the moves have ended
BROKEN_S = 5.0  # without a byte, and a connection of the control counts as broken


class End:
    """One end of a connection: writes its stream, reads the other's, hashes both."""

    def __init__(self, sock: socket.socket, seed: int) -> None:
        self.sock = sock
        self.sent, self.received = 0, 0
        self.ended = False  # the other end's stream
        self._written, self._read = hashlib.sha256(), hashlib.sha256()
        self._stream = memoryview(random.Random(seed).randbytes(PERIOD) * 2)
        self._into = bytearray(CHUNK)

    def work(self, seconds: float, write: bool = True, read: bool = True, stop: Any = None) -> bool:
        """Send and read for so long, or until the other end has ended; True if `stop` became readable."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and not (self.ended and not write):
            readers = [self.sock] if read and not self.ended else []
            ready, writable, _ = select.select(
                [*readers, *([stop] if stop else [])], [self.sock] if write else [], [], left
            )
            if stop in ready:
                return True
            if self.sock in ready:
                self._take()
            if writable:
                self._give()
        return False

    def _give(self) -> None:
        start = self.sent % PERIOD
        with contextlib.suppress(BlockingIOError):
            count = self.sock.send(self._stream[start : start + CHUNK])
            self._written.update(self._stream[start : start + count])
            self.sent += count

    def _take(self) -> None:
        with contextlib.suppress(BlockingIOError):
            count = self.sock.recv_into(self._into)
            self._read.update(memoryview(self._into)[:count])
            self.received += count
            self.ended = not count

    def summary(self) -> dict[str, Any]:
        """What was sent and what was read."""
        return {
            "sent": self.sent,
            "received": self.received,
            "written": self._written.hexdigest(),
            "read": self._read.hexdigest(),
        }


def set_buffers(sock: socket.socket, size: int) -> None:
    """Of a new socket, before it connects or listens."""
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, size)


# ---------------------------------------------------------------------------------------- the peer


def be_peer(family: int, address: str, size: int, seed: int) -> None:
    """The other process: one connection, until a line arrives on standard input; then the summary is printed."""
    with socket.socket(family) as listener:
        set_buffers(listener, size)
        listener.bind((address, PORT))
        listener.listen()
        print("listening", flush=True)
        sock, _ = listener.accept()
    sock.setblocking(False)
    end, chance = End(sock, seed + 1), random.Random(seed + 2)
    with contextlib.suppress(ConnectionError):  # in the control
        while not end.work(chance.uniform(0, 0.03), chance.random() < 0.8, chance.random() < 0.8, sys.stdin):
            pass
        sock.shutdown(socket.SHUT_WR)
        end.work(10 * PATIENCE_S, write=False)
    print(json.dumps(end.summary()), flush=True)


class Connection:
    """A connection in a lab of its own, with the peer's process, the loss on the way, and captures of what is amiss."""

    def __init__(self, family: str, size: int, loss: float, seed: int) -> None:
        self._family, self._size, self._loss, self._seed = family, size, loss, seed

    def __enter__(self) -> Connection:
        with contextlib.ExitStack() as stack:
            self.lab = lab = stack.enter_context(Lab())
            self.hosts = [lab.host("left"), lab.host("right")]
            peer = lab.host("peer")
            family, address = ADDRESSES[self._family]
            at = peer.address4 if family == socket.AF_INET else peer.address6
            self.hosts[0].add_address(address)
            amiss = Flags.RST | Flags.FIN
            self.captures = [stack.enter_context(h.capture(flags=amiss, keep=100)) for h in (*self.hosts, peer)]
            self.peer = peer.start(
                [sys.executable, __file__, "--peer", str(int(family)), at, str(self._size), str(self._seed)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            self.peer.stdout.readline()
            sock = self.hosts[0].socket(family)
            set_buffers(sock, self._size)
            sock.bind((address, 0))
            sock.connect((at, PORT))
            sock.setblocking(False)
            self.end = End(sock, self._seed)
            self.loss = lab.drop(self._loss)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.end.sock.close()
        self._open.close()
        self.peer.communicate()

    def move(self) -> Moved:
        """To the host where it is not.  Raises KernelNotesError; then it is where it was."""
        moved = move(self.end.sock, self.hosts[1])
        self.hosts.reverse()
        self.end.sock = moved.sock
        moved.sock.setblocking(False)
        return moved

    def finish(self, patience_s: float) -> dict[str, Any]:
        """End both streams and compare them, and the packets that nobody should have sent.

        Who does not hear for `patience_s` seconds gives up.
        """
        until = time.time()
        self.peer.stdin.write("stop\n")
        self.peer.stdin.flush()
        self.end.sock.shutdown(socket.SHUT_WR)
        before = -1
        while not self.end.ended and before != self.end.received:
            before = self.end.received
            self.end.work(patience_s, write=False)
        ready, _, _ = select.select([self.peer.stdout], [], [], patience_s)
        theirs = json.loads(self.peer.stdout.readline() or "{}") if ready else {}
        ours = self.end.summary()
        seen = [s for capture in self.captures for s in capture.segments]
        return {
            "sent": ours["sent"],
            "received": ours["received"],
            "peer_sent": theirs.get("sent"),
            "peer_received": theirs.get("received"),
            "right": theirs
            and (ours["written"], ours["read"]) == (theirs["read"], theirs["written"])
            and (ours["sent"], ours["received"]) == (theirs["received"], theirs["sent"]),
            "resets": sum(bool(s.flags & Flags.RST) for s in seen),
            "early_fins": sum(bool(s.flags & Flags.FIN) and s.time < until for s in seen),
            "unseen": sum(capture.lost for capture in self.captures),
            "dropped": self.loss.dropped,
        }


# ---------------------------------------------------------------------------------------- the soak


def rhythm(seed: int) -> Iterator[tuple[float, bool, bool]]:
    """For how many seconds the moving end works before each move, and whether it writes, and reads."""
    chance = random.Random(seed)
    while True:
        # After a short time packets lost in the last move are still missing.  The new host does not know how long an
        # answer takes, and waits 3 s for the first (TCP_TIMEOUT_FALLBACK): after more than that all flows again.
        kind = chance.random()
        low, high = (0, 0.02) if kind < 0.7 else (0.05, 0.25) if kind < 0.98 else (3.2, 3.6)
        seconds = chance.uniform(low, high)
        yield seconds, chance.random() < 0.8, chance.random() < 0.8


def soak(family: str, buffers: str, moves: int, loss: float, seed: int, progress: Any) -> dict[str, Any]:
    """Move one connection so many times: what was found at its ends."""
    freezes, refused, queues = [], Counter[str](), Counter[str]()
    start = time.perf_counter()
    with Connection(family, BUFFERS[buffers], loss, seed) as connection:
        for _, work in zip(range(moves), rhythm(seed), strict=False):
            connection.end.work(*work)
            try:
                moved = connection.move()
            except KernelNotesError as e:
                refused[str(e)] += 1
                continue
            finally:
                progress.update()
            freezes.append(moved.freeze_us)
            found = {"not read": moved.snapshot.recv_queue, "not acknowledged": moved.snapshot.unacked}
            for name, queue in (found | {"never sent": moved.snapshot.never_sent}).items():
                queues[name] = max(queues[name], len(queue))
            del moved, found  # a snapshot has both queues
        seconds = time.perf_counter() - start
        told = connection.finish(PATIENCE_S)
    return told | {
        "family": family,
        "buffers": buffers,
        "moves": moves,
        "seconds": seconds,
        "freezes": freezes,
        "refused": refused,
        "queues": queues,
    }


def freeze_time(freezes: list[float]) -> str:
    """The median, the ninth decile and the longest, in microseconds."""
    deciles = statistics.quantiles(freezes, n=10) if len(freezes) > 1 else freezes * 9
    return f"{statistics.median(freezes):.0f} us median, {deciles[8]:.0f} p90, {max(freezes):.0f} max"


def tell(result: dict[str, Any]) -> bool:
    """Print one connection's; whether all of it was right."""
    wrong = not result["right"] or result["refused"] or result["resets"] or result["early_fins"] or result["unseen"]
    volume = result["sent"] + result["received"]
    print(
        f"{result['family']}, {result['buffers']} buffers: {result['moves']} moves in {result['seconds']:.1f} s, "
        f"{volume / 1e6:.1f} MB ({volume / 1e6 / result['seconds']:.1f} MB/s), frozen {freeze_time(result['freezes'])}"
    )
    queues = ", ".join(f"{size} {name}" for name, size in result["queues"].items())
    print(f"    at most {queues}; {result['dropped']} packets dropped on the way")
    print(
        f"    sent {result['sent']}, arrived {result['peer_received']}; sent back {result['peer_sent']}, "
        f"arrived {result['received']}; hashes {'equal' if result['right'] else 'DIFFER'}"
    )
    print(
        f"    {result['resets']} resets, {result['early_fins']} FINs that nobody asked for, {result['unseen']} packets "
        f"not seen; {result['refused'].total()} moves refused"
    )
    for why, count in result["refused"].items():
        print(f"    refused {count} times: {why}")
    return not wrong


def run_soak(moves: int, loss: float, seed: int) -> int:
    """All four connections; the exit status."""
    results, right = [], True
    with tqdm(total=moves, unit="move", disable=None, leave=False) as progress:
        cases = [(family, buffers) for family in ADDRESSES for buffers in BUFFERS]
        for at, (family, buffers) in enumerate(cases):
            share = moves * (at + 1) // len(cases) - moves * at // len(cases)
            results.append(soak(family, buffers, share, loss, seed + 10 * at, progress))
            right &= tell(results[-1])
    freezes = [us for result in results for us in result["freezes"]]
    seconds = sum(result["seconds"] for result in results)
    einvals = sum(n for r in results for why, n in r["refused"].items() if "Invalid argument" in why)
    print(
        f"in all {len(freezes)} of {moves} moves at {moves / seconds:.1f}/s, frozen {freeze_time(freezes)}; "
        f"{einvals} times EINVAL; {'all right' if right else 'WRONG'}"
    )
    return 0 if right else 1


# ---------------------------------------------------------------------------------------- the control

NO_LOCK = plan.Step("no lock", "clock")
WINDOWS = ("getsockopt", int(TcpOption.TCP_REPAIR_WINDOW))


def read_once(windows_last: bool) -> Any:
    """`dump_steps` without the second read, which gets the answers of the first; by choice the windows read last."""
    original = plan.dump_steps

    def order(steps: list[plan.Step]) -> list[int]:
        late = [(step.call, *step.args[1:2]) == WINDOWS for step in steps]
        return sorted(range(len(steps)), key=lambda i: late[i]) if windows_last else list(range(len(steps)))

    def steps_once(before: plan.Before) -> Generator[list[plan.Step], list[Any], Any]:
        dumping, first, answers = original(before), None, []
        try:
            steps = next(dumping)
            while True:
                if first is not None and steps[: len(first)] == first:
                    results = [*answers, None][: len(steps)]
                else:
                    turn = order(steps)
                    told = yield [steps[i] for i in turn]
                    results = [told[turn.index(i)] for i in range(len(steps))]
                    first, answers = first or steps, answers or results
                steps = dumping.send(results)
        except StopIteration as end:
            return end.value

    return steps_once


def move_by_address(sock: socket.socket, source: Host, target: Host) -> socket.socket:
    """What `move` does, but for the lock: the address is taken away instead, before the connection is read."""
    address = address_of(sock)
    new = target.socket(sock.family)
    target.share(address)
    source._addresses.remove(address)  # what is on its way inside the kernel still arrives
    try:
        with freeze(sock) as frozen, prepare(frozen.dump(), lambda _: new) as prepared:
            target._addresses.announce(address)
            prepared.commit()
    except KernelNotesError:
        new.close()
        target.unshare(address)
        source._addresses.add(address)
        raise
    target._shared.remove(address)
    source.addresses.remove(address)
    target.addresses.append(address)
    sock.close()
    return new


class WithoutLock(Connection):
    """A connection whose moves have no lock, or only that its address is taken away first."""

    by_address = False

    def move(self) -> Moved | None:
        """See `Connection.move`."""
        if not self.by_address:
            return super().move()
        self.end.sock = move_by_address(self.end.sock, *self.hosts)
        self.hosts.reverse()
        self.end.sock.setblocking(False)
        return None


def run_control(moves: int, loss: float, seed: int) -> int:
    """Moves without the lock and the second read, until so many were tried, on connections that are given up broken."""
    for by_address, windows_last in itertools.product((False, True), repeat=2):
        outcomes, connections, broken, at = Counter[str](), 0, 0, 0
        WithoutLock.by_address = by_address
        with (
            tqdm(total=moves, unit="move", disable=None, leave=False) as progress,
            mock.patch.object(plan, "LOCK", NO_LOCK),
            mock.patch.object(plan, "dump_steps", read_once(windows_last)),
        ):
            while at < moves:
                family, buffers = list(ADDRESSES)[connections % 2], list(BUFFERS)[connections // 2 % 2]
                connections += 1
                tried, right = without(family, buffers, min(50, moves - at), loss, seed + connections, outcomes)
                at += tried
                progress.update(tried)
                broken += not right
        print(
            f"{'the address taken away as the only lock' if by_address else 'no lock'}, read once, "
            f"the windows {'after' if windows_last else 'before'} the sequence numbers: "
            f"{moves} moves tried, {outcomes.pop('moved', 0)} done"
        )
        for why, count in outcomes.items():
            print(f"    refused {count} times: {why}")
        print(
            f"    {broken} of {connections} connections broken: bytes lost, or silence for {BROKEN_S:g} s", flush=True
        )
    return 0


def without(family: str, buffers: str, moves: int, loss: float, seed: int, outcomes: Counter[str]) -> tuple[int, bool]:
    """One connection of the control: how many moves were tried until it broke, and whether it was right."""
    with WithoutLock(family, BUFFERS[buffers], loss, seed) as connection:
        moved_bytes, since = 0, time.monotonic()
        for tried, work in zip(range(1, moves + 1), rhythm(seed), strict=False):
            try:
                connection.end.work(*work)
            except OSError as e:
                outcomes[f"(not a move) {e}"] += 1
                return tried, False
            try:
                connection.move()
                outcomes["moved"] += 1
            except KernelNotesError as e:
                outcomes[str(e)] += 1
            if (now := connection.end.sent + connection.end.received) != moved_bytes:
                moved_bytes, since = now, time.monotonic()
            elif time.monotonic() - since > BROKEN_S:
                return tried, False
        return moves, bool(connection.finish(BROKEN_S)["right"])


def main() -> int:
    """Move, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moves", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="30 moves")
    parser.add_argument("--loss", type=float, default=0.01, help="share of the packets that the switch drops")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--control", action="store_true", help="without the lock and the second read")
    parser.add_argument("--peer", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        be_peer(int(options.peer[0]), options.peer[1], int(options.peer[2]), int(options.peer[3]))
        return 0
    moves = 30 if options.quick else options.moves
    return (run_control if options.control else run_soak)(moves, options.loss, options.seed)


if __name__ == "__main__":
    sys.exit(main())
