"""Self-checks for the labs: each says whether an answer is right, and if not, what to look at; no grader is needed.

    check.refault_test(my_function)      a Verdict, which prints as one or two sentences and is true if it is right

What is right comes from the models of this package.  `Verdict.insist()` is for the cells that a grader runs.

>>> check.offsets("struct s { char a; long long b; };", "i386", {"a": 0, "b": 8, "size": 12, "align": 4})
Not yet: struct s on i386, b: you say 8. a ends at 1; b goes to the next multiple of 4, its alignment on this ABI.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from kernelnotes import abi as abis
from kernelnotes import cdecl, refault
from kernelnotes.errors import BadInput
from kernelnotes.layout import Layout
from kernelnotes.layout import layout as lay_out
from kernelnotes.layout.hazards import compared, pairs

if TYPE_CHECKING:
    import pandas as pd

    from kernelnotes.autofs import Reader
    from kernelnotes.repair import Snapshot, Step


@dataclass(frozen=True)
class Verdict:
    """Whether an answer is right, and what there is to say about it."""

    right: bool
    message: str

    def __bool__(self) -> bool:
        """True if it is right."""
        return self.right

    def __str__(self) -> str:
        """In words."""
        return f"{'Right' if self.right else 'Not yet'}: {self.message}"

    __repr__ = __str__

    def insist(self) -> None:
        """Raises AssertionError with the message unless it is right."""
        if not self.right:
            raise AssertionError(self.message)


def _wrong(message: str) -> Verdict:
    return Verdict(False, message)


Check = TypeVar("Check", bound=Callable[..., Verdict])


def _told(check: Check) -> Check:
    """A check of what is not finished yet: whatever it raises becomes a verdict, too."""

    @functools.wraps(check)
    def told(*given: Any, **named: Any) -> Verdict:
        try:
            return check(*given, **named)
        except NotImplementedError:
            return _wrong("there is no answer yet.")
        except Exception as e:  # anything that an answer of somebody else may do
            return _wrong(f"it ended with {type(e).__name__}: {e}")

    return cast(Check, told)


# ------------------------------------------------------------------------------------- refault distance

TRACES = ("ABCDABCD", "ABCABCDDAB", "AAAABBBB", "ABCDEABCDEABCDE", "ABACADABACADAE")


@_told
def refault_test(
    function: Callable[[Sequence[str], int], Sequence[int]], traces: Iterable[Sequence[str]] = TRACES, memory: int = 3
) -> Verdict:
    """Whether `function(pages, memory)` gives HIT, COLD or R for each access to a first-in-first-out list.

    Compared with rules "fifo"; the first access that differs is told.
    """
    for pages in traces:
        m = refault.Memory(memory, rules="fifo")
        told = list(function(list(pages), memory))
        if len(told) != len(pages):
            return _wrong(f"{len(pages)} accesses, but {len(told)} answers: one is expected for each access, hits too.")
        for i, (page, mine) in enumerate(zip(pages, told, strict=True)):
            clock, entry = m.workingset_time, m.shadow.get(page)
            event = m.access(page)
            if mine == event.distance:
                continue
            where = f"{' '.join(pages)} with {memory} pages: access {i} ({page})"
            name = {refault.HIT: "HIT", refault.COLD: "COLD"}
            expected = name.get(event.distance, f"R = {event.distance}")
            hint = "it is in memory." if event.hit else "it was never seen before."
            if event.refault:
                hint = f"its shadow entry says {entry} and the clock {clock}; what makes yours tick?"
            return _wrong(f"{where}: you say {name.get(mine, mine)}, expected {expected}; {hint}")
    return Verdict(True, "every access of every trace has its HIT, COLD or distance.")


def score(rules: refault.Rules, traces: Mapping[str, tuple[Any, int]]) -> pd.DataFrame:
    """How much of the way from the rule of 2012 to OPT a rule set goes, per trace.

    traces : by name, a trace and the pages of memory
    Columns: faults of balanced-2012, of `rules` and of OPT; `share`: 0 is as good as the rule of 2012, 1 as OPT, below
    0 worse.
    """
    import pandas as pd

    rows = {}
    for name, (trace, memory) in traces.items():
        start, mine, best = (
            refault.replay(trace, memory, each, keep="counts").faults for each in ("balanced-2012", rules, "opt")
        )
        rows[name] = {
            "balanced-2012": start,
            "yours": mine,
            "opt": best,
            "share": (start - mine) / (start - best) if start > best else 0.0,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


# ----------------------------------------------------------------------------------------------- layout


@_told
def offsets(source: str, abi: str, given: Mapping[str, int]) -> Verdict:
    """Whether `given` has the offset of each member of the one record in `source`, its "size" and its "align"."""
    [record] = cdecl.parse(source).values()
    made = lay_out(record, abi)
    expected = {m.name: m.offset for m in made.members} | {"size": made.size, "align": made.align}
    missing = [name for name in expected if name not in given]
    if missing:
        return _wrong(f"{missing[0]!r} is missing: expected the offsets of all members, and 'size' and 'align'.")
    for name, value in expected.items():
        if given[name] != value:
            return _wrong(f"{record} on {abi}, {name}: you say {given[name]}. {_hint(made, name)}")
    return Verdict(True, f"that is {record} on {abi}.")


def _hint(made: Layout, name: str) -> str:
    from kernelnotes.layout.place import measure

    if name == "align":
        return "The struct is aligned as its strictest member; which one is that, on this ABI?"
    if name == "size":
        return f"The last member ends at {made.size - made.padding}; in an array every struct must be aligned."
    at = [m.name for m in made.members].index(name)
    member = made.members[at]
    align = measure(member.type, made.abi).align
    if at == 0:
        return "The first member is where the struct begins."
    before = made.members[at - 1]
    end = before.offset + before.size
    return f"{before.name} ends at {end}; {name} goes to the next multiple of {align}, its alignment on this ABI."


@_told
def agrees(source: str, abi_a: str = "i386", abi_b: str = "x86-64", like: str = "") -> Verdict:
    """Whether both ABIs place every member of `source` alike; with `like`, all members of that are still there."""
    try:
        records = cdecl.parse(source)
    except BadInput as e:
        return _wrong(str(e))
    for name, record in (cdecl.parse(like) if like else {}).items():
        kept = [m.name for m in records[name].members] if name in records else []
        gone = [m.name for m in record.members if m.name and m.name not in kept]
        if gone:
            return _wrong(f"{name} has no member {gone[0]} any more: others use it.")
    found = compared(pairs(records, None), abis.find(abi_a), abis.find(abi_b))
    if found:
        h = found[0]
        where = f", see {', '.join(h.members)}" if h.members else ""
        return _wrong(f"{h.record} has {h.sizes[0]} bytes on {abi_a} and {h.sizes[1]} on {abi_b}: {h.kind}{where}.")
    return Verdict(True, f"{abi_a} and {abi_b} place every member alike.")


# ----------------------------------------------------------------------------------------------- autofs


@_told
def everybody_answered(reader: Reader, kernels: Iterable[str] | None = None, schedules: Iterable[str] = ()) -> Verdict:
    """Whether all processes that ask are answered in time, on each kernel (by default all), in every mode."""
    from kernelnotes.autofs import KERNELS, MODES, SCHEDULES, play

    for name in KERNELS if kernels is None else kernels:
        for mode in MODES.values():
            for schedule in tuple(schedules) or tuple(SCHEDULES):
                o = play(KERNELS[name], reader, mode, schedule)
                where = f"kernel {name!r}, {mode.name}, {schedule}: it writes {o.writes} bytes, you want {o.wants}"
                bad = next((e for e in o.events if e.kind == "packet" and not e.wakes), None)
                if bad:
                    return _wrong(
                        f"{where}; you took {bad.token} for a token. Where in the stream did that packet begin?"
                    )
                if o.hangs:
                    return _wrong(
                        f"{where}; nobody answers process {o.hangs[0]}. Whose bytes is your reader waiting for?"
                    )
                if o.late:
                    return _wrong(f"{where}; process {o.late[0]} is answered only when another one asks.")
    return Verdict(True, "everybody is answered, and nobody late.")


# ----------------------------------------------------------------------------------------------- repair

NUMBERS = ("snd_una", "unsent_seq", "write_seq", "copied_seq", "rcv_nxt")


@_told
def numbers(given: Mapping[str, int], snapshot: Snapshot, names: Iterable[str] = NUMBERS) -> Verdict:
    """Whether `given` has the sequence numbers of a snapshot; the first that differs is told, and how far it is off."""
    from kernelnotes.repair.segment import signed

    for name in names:
        if name not in given:
            return _wrong(f"{name!r} is missing.")
        off = signed(given[name] - getattr(snapshot, name))
        if off:
            side = "receive" if name in ("copied_seq", "rcv_nxt") else "send"
            hint = (
                "a FIN or a SYN takes one number" if abs(off) == 1 else f"which bytes of the {side} stream are these?"
            )
            return _wrong(f"{name} is {off:+} off: {hint}")
    return Verdict(True, "the numbers are the kernel's.")


@_told
def restores(steps: Iterable[Step], snapshot: Snapshot) -> Verdict:
    """Whether the steps, on a socket that knows the rules of repair mode, give the connection of `snapshot`."""
    from kernelnotes.repair import spelling
    from kernelnotes.repair.toy import ToySocket

    sock = ToySocket(snapshot.family)
    calls = sock.calls()
    for number, step in enumerate(steps, 1):
        try:
            calls[step.call](*step.args)
        except OSError as e:
            if e.errno not in step.ignored:
                return _wrong(
                    f"step {number}, {spelling.call(step)}: the kernel says {e.strerror}. Is it too early, or too late?"
                )
        except AssertionError:
            return _wrong(f"step {number}, {spelling.call(step)}: it does not fit what was set before.")
    found: dict[str, tuple[Any, Any]] = {
        "state": (sock.state, snapshot.state),
        "receive queue": (sock.received, snapshot.recv_queue),
        "send queue": (sock.written, snapshot.send_queue),
        "rcv_nxt": (sock.rcv_nxt, snapshot.rcv_nxt),
        "write_seq": (sock.write_seq, snapshot.write_seq),
        "the address": (sock.local, snapshot.local),
        "the peer's address": (sock.peer, snapshot.peer),
        "repair mode": (bool(sock.repair), False),
    }
    if snapshot.state.name not in ("TCP_SYN_SENT", "TCP_CLOSE"):
        found |= {
            "the windows": (sock.window, snapshot.window),
            "the scales": (sock.agreed.scales, (snapshot.snd_wscale, snapshot.rcv_wscale)),
            "the largest segment": (sock.agreed.clamp, snapshot.mss_clamp),
            "the clock of the time stamps": (bool(sock.clock), snapshot.timestamp is not None),
        }
    for what, (is_now, should) in found.items():
        if is_now != should:
            told = (
                f"{len(is_now)} bytes, expected {len(should)}"
                if isinstance(is_now, bytes)
                else f"{is_now}, expected {should}"
            )
            return _wrong(f"no call was refused, but at the end {what} is {told}.")
    return Verdict(True, "the connection is what it was.")
