"""TCP connection repair: what a connection is, and the calls that take it apart and put it together again.

constants  the names and numbers of the kernel's headers
options    the socket options that belong to a connection
snapshot   a connection at rest: two queues and a handful of numbers
files      a snapshot as a file
steps      dump and restore as lists of calls
segment    one TCP segment, read from a packet or written as one
session    the calls of a live move, recorded, and the same code run on them where no kernel is at hand

>>> snapshot = repair.session.replay("established-ipv4").snapshot
>>> snapshot.state.name, len(snapshot.recv_queue), len(snapshot.send_queue)
('TCP_ESTABLISHED', 315, 13240)
>>> len(repair.restore_steps(snapshot))
29
"""

from kernelnotes.repair.constants import TcpOption, TcpState, Window
from kernelnotes.repair.options import OPTIONS
from kernelnotes.repair.session import Diverged, Recorder, Replay, Session, replay
from kernelnotes.repair.snapshot import STATES, Snapshot, check
from kernelnotes.repair.steps import (
    Before,
    Step,
    commit_steps,
    dump_steps,
    freeze_steps,
    hold_steps,
    look_steps,
    perform,
    prepare_steps,
    release_steps,
    restore_steps,
    resume_steps,
    run,
)

__all__ = [
    "OPTIONS",
    "STATES",
    "Before",
    "Diverged",
    "Recorder",
    "Replay",
    "Session",
    "Snapshot",
    "Step",
    "TcpOption",
    "TcpState",
    "Window",
    "check",
    "commit_steps",
    "dump_steps",
    "freeze_steps",
    "hold_steps",
    "look_steps",
    "perform",
    "prepare_steps",
    "release_steps",
    "replay",
    "restore_steps",
    "resume_steps",
    "run",
]
