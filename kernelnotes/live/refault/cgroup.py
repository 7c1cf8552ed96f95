"""A memory cgroup of one's own, with a limit and with the kernel's counters, in version 1 or 2 of the interface.

    what               version 1                 version 2
    limit              memory.limit_in_bytes     memory.max
    no swapping        (none is set up)          memory.swap.max
    end all inside     signal each process       cgroup.kill (since 5.14), else signal each process
    counters           memory.stat: pgpgin...    memory.stat: workingset_activate_file, pgdeactivate...

Version 1 is what the tests run on.  Version 2 follows its documentation and is tested against a folder that looks like
it; a cgroup of version 2 can have a limit only if its parent hands the controller down and holds no process itself.

Source: Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst, mm/memcontrol.c memory_stat_format(),
mm/memcontrol-v1.c memcg1_stat_format(), v6.18.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from kernelnotes.errors import CallFailed, Unavailable
from kernelnotes.live import trial

PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")


class MemoryCgroup:
    """A memory cgroup of `pages` pages below our own; on leaving, its processes are killed and it is removed.

    above : version and directory of the cgroup to make it in; by default our own, or the nearest one above that can
    Raises Unavailable where it cannot be made, with the reason; FileNotFoundError if somebody removes it meanwhile.
    """

    def __init__(self, pages: int, above: tuple[int, Path] | None = None) -> None:
        self.version, group = above or _group_to_limit_below()
        self.path = group / f"kernelnotes-{os.getpid()}-{time.monotonic_ns():x}"
        self.pages = pages

    def __enter__(self) -> MemoryCgroup:
        try:
            self.path.mkdir()
        except OSError as e:
            raise Unavailable(f"memory cgroup: cannot create {self.path}: {e.strerror}; run as root") from e
        try:
            limit = "memory.limit_in_bytes" if self.version == 1 else "memory.max"
            (self.path / limit).write_text(str(self.pages * PAGE_SIZE))
            if (self.path / "memory.swap.max").exists():
                (self.path / "memory.swap.max").write_text("0")
        except BaseException:
            self.path.rmdir()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for _attempt in range(500):  # a killed process leaves its cgroup when it has been torn down
            if not self.path.exists():
                return
            self._kill()
            try:
                self.path.rmdir()
                return
            except OSError:
                time.sleep(0.01)
        raise CallFailed(0, f"memory cgroup: {self.path} cannot be removed: something in it does not end")

    def _kill(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if (self.path / "cgroup.kill").exists():
                (self.path / "cgroup.kill").write_text("1")
                return
            for pid in (self.path / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)

    def enter(self) -> None:
        """Move the calling process in."""
        (self.path / "cgroup.procs").write_text("0")

    def stat(self) -> dict[str, int]:
        """memory.stat: the kernel's own counts for this cgroup.  Reading it makes the kernel fold its statistics."""
        return counts((self.path / "memory.stat").read_text())


def counts(stat: str) -> dict[str, int]:
    """The text of a memory.stat as numbers."""
    return {name: int(number) for name, number in map(str.split, stat.splitlines())}


def _group_to_limit_below() -> tuple[int, Path]:
    groups = trial.memory_groups(trial.mounts(), Path("/proc/self/cgroup").read_text())
    nearest = {version: path for version, path, _ in groups}  # they come from the top down to our own
    if not nearest:
        raise Unavailable(
            "memory cgroup: no mounted control group hands on the memory controller; as root:"
            " mount -t cgroup -o memory none /mnt, or echo +memory > /sys/fs/cgroup/cgroup.subtree_control"
        )
    version = min(nearest)
    return version, nearest[version]
