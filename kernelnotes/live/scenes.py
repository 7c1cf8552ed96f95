"""Scenes with the running kernel's pipes and its autofs, for the book and for whoever wants to see them.

    pipe_reads(...)    writes and reads of any sizes, at a plain pipe and at a packet pipe; no privilege needed
    visit()            an automounter at work: somebody comes, asks for what is not there, comes again after a while
    lose_step()        three requests, read 300 bytes at a time as a 32-bit daemon would, with and without O_DIRECT

The last two need what `kernelnotes doctor` calls "autofs".  They leave nothing behind, whatever happens: each runs in a
process with a mount and a pid namespace of its own, which ends, or is killed after `TIMEOUT_S`, and all in it.
In there /mnt is an empty tmpfs, so that the names are the same on every machine.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kernelnotes.abi import find
from kernelnotes.autofs import IOCTLS, scenes
from kernelnotes.autofs.header import placed
from kernelnotes.autofs.log import Log
from kernelnotes.errors import CallFailed
from kernelnotes.live import machine, mounts, trial
from kernelnotes.live.autofs import Automount, unfix
from kernelnotes.live.btf import ABIS
from kernelnotes.live.origin import provenance
from kernelnotes.live.pipes import Ends, packet_pipe

if TYPE_CHECKING:
    import pandas as pd

TIMEOUT_S = 30.0
CLONE_NEWPID = 0x20000000  # include/uapi/linux/sched.h
NAMES = ("alpha", "beta", "gamma")
STAGE = Path("/mnt")


def visit() -> Log:
    """The log of an automounter with an idle timeout of one second.

    Raises Unavailable where this machine cannot do it, CallFailed where the scene breaks off.
    """
    return scenes.log(played("visit"), provenance("an automounter is visited"))


def lose_step() -> pd.DataFrame:
    """A row per read of 300 bytes, from a packet pipe and from one whose O_DIRECT was cleared; see `scenes.steps`.

    Raises as `visit` does.
    """
    return scenes.steps(played("lose_step"), provenance("300 bytes read from the pipe of a mount"))


def pipe_reads(experiments: scenes.Experiments) -> pd.DataFrame:
    """As `scenes.pipe_reads`, with pipes of the running kernel.  Raises Unavailable where it has no packet pipes."""
    machine.require("packet pipes")
    with ExitStack() as made:
        origin = provenance("write and read, pipe2(0) and pipe2(O_DIRECT)")
        return scenes.pipe_reads(experiments, lambda packets: made.enter_context(_Real(packets)), origin)


class _Real:
    # A pipe of the running kernel that does not wait.
    def __init__(self, packets: bool) -> None:
        self._ends = packet_pipe() if packets else Ends(*os.pipe2(os.O_CLOEXEC))
        os.set_blocking(self._ends.read, False)
        os.set_blocking(self._ends.write, False)

    def __enter__(self) -> _Real:
        return self

    def __exit__(self, *_: object) -> None:
        for end in self._ends:
            os.close(end)

    def write(self, data: bytes) -> int:
        return os.write(self._ends.write, data)

    def read(self, size: int) -> bytes:
        return os.read(self._ends.read, size)


def played(scene: str) -> Any:
    """What a scene of `SCENES` tells, as JSON has it.  Raises as `visit` does."""
    machine.require("autofs")
    with tempfile.TemporaryDirectory(prefix="kernelnotes-scene-") as folder:
        command = [sys.executable, "-m", "kernelnotes.live.scenes", scene, folder]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=TIMEOUT_S, process_group=0, check=False
            )
        except subprocess.TimeoutExpired:
            raise CallFailed(errno.ETIMEDOUT, f"the scene {scene} did not end within {TIMEOUT_S:g} s") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise CallFailed(errno.EIO, f"the scene {scene} broke off: {last}")
    return json.loads(done.stdout)


# ------------------------------------------------------------------------------------ in the process of a scene


def _visit(folder: Path) -> list[dict[str, Any]]:
    home, source = folder / "auto", folder / "src"
    source.mkdir()
    (source / "hello").write_text("hello")
    home.mkdir()
    with Automount(home, {"alice": source}.get, timeout=1) as served:
        _asked(home / "alice/hello")
        _asked(home / "bob")
        for event in served.follow():  # until what is idle is unmounted
            if event.what == "unmount":
                break
        time.sleep(0.2)
        _asked(home / "alice/hello")
    return [asdict(event) for event in served.log.events]


def _asked(path: Path) -> None:
    # By another process group: the daemon's own triggers nothing.
    subprocess.run(["stat", path], process_group=0, capture_output=True, timeout=10, check=False)


def _lose_step(folder: Path) -> list[dict[str, Any]]:
    rows = []
    for packets in (True, False):
        home = folder / f"home{packets}"
        home.mkdir()
        with _mounted(home, packets) as (pipe, root):
            asking = []
            try:
                asking = [_waiting(home / name) for name in NAMES]
                reads = [_one_read(pipe, root) for _ in NAMES]
                ends = [
                    _end(process, read["answer"] == "accepted") for process, read in zip(asking, reads, strict=True)
                ]
            finally:
                for process in asking:  # a process in autofs_wait dies of nothing but SIGKILL
                    process.kill()
                    process.wait()
        rows += [{"packets": packets, **read, "process": end} for read, end in zip(reads, ends, strict=True)]
    return rows


@contextmanager
def _mounted(home: Path, packets: bool) -> Iterator[tuple[int, int]]:
    # The read end, non-blocking, and the root of an autofs of our own.
    read, write = os.pipe2(os.O_CLOEXEC)
    options = f"fd={write},pgrp={os.getpgrp()},minproto=5,maxproto=5,indirect"
    mounts.mount("kernelnotes", str(home), "autofs", options=options)
    root = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    if not packets:
        unfix(write)
    os.set_blocking(read, False)
    try:
        yield read, root
    finally:
        with suppress(OSError):
            fcntl.ioctl(root, _number("AUTOFS_IOC_CATATONIC"), 0)
        for fd in (root, read, write):
            os.close(fd)
        mounts.unmount(str(home))


def _waiting(path: Path) -> subprocess.Popen[bytes]:
    # A process that asks, once it waits in the kernel.
    process = subprocess.Popen(["stat", path], process_group=0, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 5
    while _state(process) != "in autofs_wait":
        if time.monotonic() > deadline:
            process.kill()
            raise CallFailed(errno.ETIMEDOUT, f"stat {path.name} does not wait in the kernel")
        time.sleep(0.002)
    return process


def _state(process: subprocess.Popen[bytes]) -> str:
    if process.poll() is not None:
        return "answered"
    place = Path("/proc", str(process.pid), "wchan").read_text()
    return f"in {place}" if place != "0" else "runs"


def _one_read(pipe: int, root: int) -> dict[str, Any]:
    # 300 bytes as an i386 program understands them; the answer is FAIL, "no such name".
    packet = placed("struct autofs_v5_packet", find("i386"))
    data = os.read(pipe, packet.size)
    values = packet.unpack(data.ljust(packet.size, b"\0"))
    token = values["wait_queue_token"]
    try:
        fcntl.ioctl(root, _number("AUTOFS_IOC_FAIL"), token)
        answer = "accepted"
    except OSError as e:
        answer = errno.errorcode.get(e.errno or 0, "?")
    header = values["hdr"]
    return {
        "bytes": len(data),
        "proto": header["proto_version"],
        "type": header["type"],
        "token": token,
        "answer": answer,
    }


def _number(ioctl: str) -> int:
    return IOCTLS[ioctl].number(ABIS[os.uname().machine])


def _end(process: subprocess.Popen[bytes], answered: bool) -> str:
    # What becomes of it: within a moment, or, since its token was answered, as long as a busy machine takes.
    with suppress(subprocess.TimeoutExpired):
        process.wait(10 if answered else 0.5)
    return _state(process)


SCENES: dict[str, Callable[[Path], list[dict[str, Any]]]] = {"visit": _visit, "lose_step": _lose_step}


def _main(scene: str, folder: str) -> int:
    # The first process of a pid namespace: when it ends, or whoever wanted to see it, all others in there are killed,
    # those too that wait in state D for a daemon's answer.
    trial._libc("unshare", trial.CLONE_NEWNS | CLONE_NEWPID)
    if inner := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1])
    trial._libc("prctl", trial.PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()
    trial._libc("mount", None, b"/", None, ctypes.c_ulong(trial.MS_REC | trial.MS_PRIVATE), None)
    mounts.mount("proc", "/proc", "proc")
    print(json.dumps(SCENES[scene](_stage(Path(folder)))))
    return 0


def _stage(folder: Path) -> Path:
    # /mnt, emptied for us alone; `folder` where there is none, or where what we run lives below it.
    needed = [sys.executable, sys.prefix, __file__, shutil.which("stat") or "", *sys.path]
    if not STAGE.is_dir() or STAGE.is_symlink() or any(Path(place).is_relative_to(STAGE) for place in needed):
        return folder
    mounts.mount("kernelnotes", str(STAGE), "tmpfs")
    return STAGE


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
