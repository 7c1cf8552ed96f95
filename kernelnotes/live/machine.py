"""What this machine can do, found by trying it, with the reason and the remedy where it cannot.

    namespaces       a user + network namespace of one's own: most of TCP repair without root
    net admin        CAP_NET_ADMIN in this process
    tcp repair       TCP_REPAIR on a socket, as we are or in a user + network namespace
    packet pipes     pipe2(O_DIRECT): one read, one packet
    autofs           mounting autofs
    32-bit programs  gcc -m32, and a kernel that runs what it makes
    cgroup memory    a control group with a memory limit, version 1 or 2
    filemap events   the page cache's tracepoints
    kernel types     the kernel's own structs, in /sys/kernel/btf
    numba            compiled replay

Nothing is left behind and nothing of this process changes: a trial that mounts, unshares or compiles runs in a process
of its own (see `trial`), all of them at once. Imports anywhere; elsewhere than on Linux the answer is "Linux only".
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from kernelnotes.errors import BadInput, Unavailable
from kernelnotes.live import trial

NAMES = tuple(trial.TRIALS)
HARMLESS = (
    "net admin",
    "packet pipes",
    "kernel types",
)  # tried in this very process: they open and close, and change nothing
ANYWHERE = ("numba",)
TIMEOUT_S = 8.0  # for all trials together; on two idle cores they take about one second
CLEANING_S = 5.0  # for a trial that is told to end


@dataclass(frozen=True, slots=True)
class Ability:
    """One thing a machine may be able to do; `reason` and `remedy` are empty where it is available."""

    name: str
    available: bool
    detail: str = ""
    reason: str = ""
    remedy: str = ""


def examine(names: Iterable[str] = NAMES) -> list[Ability]:
    """Try the named abilities, all by default; the answers come in the order of the names.

    Takes `TIMEOUT_S` at most, and leaves nothing behind, on Ctrl-C neither. Raises BadInput for an unknown name.
    """
    names = list(names)
    for name in names:
        if name not in NAMES:
            raise BadInput(f"unknown ability {name!r}, expected one of: {', '.join(NAMES)}")
    found: dict[str, Ability] = {}
    if sys.platform != "linux":
        found = {n: Ability(n, False, "", "Linux only", "a Linux machine") for n in names if n not in ANYWHERE}
    found |= {n: Ability(n, *trial.TRIALS[n]()) for n in names if n in HARMLESS and n not in found}
    deadline = time.monotonic() + TIMEOUT_S
    running: dict[str, subprocess.Popen[str]] = {}
    try:
        for name in names:
            if name not in found and name not in running:
                running[name] = _start(name)
        found |= {name: _answer(name, process, deadline) for name, process in running.items()}
    finally:
        for process in running.values():
            _stop(process)
    return [found[name] for name in names]


def require(name: str) -> Ability:
    """The ability, tried now; raises Unavailable with reason and remedy where this machine lacks it."""
    [ability] = examine([name])
    if not ability.available:
        raise Unavailable(f"{name}: {ability.reason}. Remedy: {ability.remedy}")
    return ability


def _start(name: str) -> subprocess.Popen[str]:
    # A session of its own keeps the terminal's Ctrl-C from the trial: we end it, with time to clean up.  -P keeps the
    # modules beside `trial` from hiding those of the standard library.
    return subprocess.Popen(
        [sys.executable, "-P", trial.__file__, name],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _answer(name: str, process: subprocess.Popen[str], deadline: float) -> Ability:
    try:
        out, err = process.communicate(timeout=max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return Ability(name, False, "", f"no answer within {TIMEOUT_S:g} s", "try again when the machine is less busy")
    try:
        return Ability(name, *trial.Outcome(**json.loads(out)))
    except ValueError:
        last = (err.strip().splitlines() or [f"status {process.returncode}"])[-1]
        return Ability(name, False, "", f"the trial itself failed: {last}", "please report this")


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(CLEANING_S)
    process.kill()
    process.communicate()
