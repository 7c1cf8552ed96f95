"""Record what the page cache does for a program, hits included, from the kernel's own tracepoints.

The program runs in a memory cgroup of its own, whose limit makes the kernel reclaim.  Two tracing instances watch:

    accesses    filemap get_pages, fault and map_pages, of the program and its children only (set_event_pid, event-fork)
    moves       filemap add and delete, of everybody: whoever is short of memory reclaims, perhaps kswapd or DAMON;
                and the moments at which the kernel folded the statistics that its decisions are made from

Both stamp their events from one counter (trace_clock `counter`), which puts them in one order across processors.

Left out, since they raise no event: writes to pages that are cached already, touches of pages that are mapped already,
and the part of a long read() that ends where a page is still on its way from the disk (filemap_get_pages() returns what
it has before it comes to its tracepoint).

Source: include/trace/events/filemap.h, mm/filemap.c, Documentation/trace/events.rst,
Documentation/admin-guide/cgroup-v1/memory.rst.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from kernelnotes import recordings
from kernelnotes.errors import BadInput, CallFailed, Unavailable
from kernelnotes.live import trial
from kernelnotes.live.origin import provenance
from kernelnotes.live.refault.cgroup import PAGE_SIZE, MemoryCgroup
from kernelnotes.live.signals import Signals
from kernelnotes.recordings import ADD, DELETE, DELETE_FOREIGN, FAULT, FLUSH, GET_PAGES, MAP_PAGES, File, Recording

_ACCESSES = {
    "filemap/mm_filemap_get_pages": GET_PAGES,
    "filemap/mm_filemap_fault": FAULT,
    "filemap/mm_filemap_map_pages": MAP_PAGES,
}
_MOVES = {"filemap/mm_filemap_add_to_page_cache": ADD, "filemap/mm_filemap_delete_from_page_cache": DELETE}
_FLUSHES = "memcg/memcg_flush_stats"  # recent kernels only; earlier ones do not tell


def record(
    command: Sequence[str],
    memory: int,
    *,
    directory: str | os.PathLike[str] = ".",
    cold: Iterable[str | os.PathLike[str]] = (),
    buffer_mb: int = 64,
    progress: bool = True,
) -> Recording:
    """Run `command` in a cgroup limited to `memory` pages and return what the page cache did for it.

    The command and all its children are recorded; it runs in `directory`, its output goes where ours goes.  `cold`
    names files and directories whose pages are dropped from the page cache first (written back, POSIX_FADV_DONTNEED),
    so that the recording sees them come in; whatever else is cached already stays, belongs to other cgroups and is not
    evicted for this one.  `buffer_mb` is the size of each kernel buffer, two per processor; when one is full further
    events are lost and `Recording.lost` says how many.

    Raises BadInput for arguments that are none, Unavailable, with the remedy, where this machine cannot do it, and
    CallFailed when the command fails.  However it
    ends, Ctrl-C and SIGTERM included, the command and its children are ended and cgroup and tracing instances removed.
    """
    _check(command, memory, directory, cold)
    with (
        Signals() as signals,
        tracefs() as root,
        _Instance(root, buffer_mb) as moves,
        _Instance(root, buffer_mb) as accesses,
    ):
        for instance, kinds in ((accesses, _ACCESSES), (moves, _MOVES)):
            for event in kinds:
                instance.enable(event, _PAGES)
        if (root / "events" / _FLUSHES).exists():
            moves.enable(_FLUSHES, _FLUSH)
        accesses.write("options/event-fork", "1")
        with signals.allowed():
            drop(cold)
        moves.write("tracing_on", "1")
        with MemoryCgroup(memory) as cgroup:
            _run(command, directory, cgroup, accesses, moves, signals, progress)
            accesses.write("tracing_on", "0")
            moves.write("tracing_on", "0")
            counters, cgroup_id = cgroup.stat(), cgroup.path.stat().st_ino
        with signals.allowed():
            events, lost = _merge(accesses, moves, cgroup_id), accesses.lost() + moves.lost()
    return _recording(events, Path(directory), memory, shlex.join(command), lost, counters)


def _check(command: Any, memory: Any, directory: Any, cold: Any) -> None:
    for what, value in (("the command", command), ("cold", cold)):
        if isinstance(value, (str, bytes, os.PathLike)):
            raise BadInput(f"record: {what} is {value!r}, expected a list")
    if not command:
        raise BadInput("record: the command is empty")
    if not isinstance(memory, int) or isinstance(memory, bool):
        raise BadInput(f"record: memory is {memory!r}, expected a whole number of pages")
    if memory < 64:
        raise BadInput(f"record: memory is {memory} pages, no program runs in less than 64")
    if not Path(directory).is_dir():
        raise BadInput(f"record: {directory} is no directory")


# ---- the program ----


def _run(
    command: Sequence[str],
    directory: str | os.PathLike[str],
    cgroup: MemoryCgroup,
    accesses: _Instance,
    moves: _Instance,
    signals: Signals,
    progress: bool,
) -> None:
    def enter() -> None:  # in the child, between fork and exec
        cgroup.enter()
        accesses.write("set_event_pid", str(os.getpid()))  # before switching on: an empty filter lets everybody in
        accesses.write("tracing_on", "1")

    with tqdm(desc="recording", unit=" events", disable=not progress, file=sys.stderr, miniters=1) as bar:
        try:
            child = subprocess.Popen(command, cwd=directory, preexec_fn=enter, start_new_session=True)
        except (OSError, subprocess.SubprocessError) as e:
            raise CallFailed(getattr(e, "errno", None) or 0, f"record: start {command[0]}: {e}") from e
        try:
            with signals.allowed():
                while child.poll() is None:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        child.wait(timeout=0.25)
                    bar.update(accesses.entries() + moves.entries() - bar.n)
        finally:
            child.kill()  # nothing to kill when it has ended; its children end with the cgroup
            child.wait()
    if child.returncode:
        why = f"; out of memory? The limit is {cgroup.pages} pages" if child.returncode == -signal.SIGKILL else ""
        raise CallFailed(0, f"record: {shlex.join(command)} failed with status {child.returncode}{why}")


def drop(paths: Iterable[str | os.PathLike[str]]) -> None:
    """Write back the files at and below `paths`, then drop them from the page cache; pages in use stay."""
    for top in map(Path, paths):
        if not top.exists():
            raise BadInput(f"{top}: no such file or directory to drop from the page cache")
        below = [Path(at) / name for at, _, names in os.walk(top) for name in names]
        for path in below or [top]:
            if path.is_file() and not path.is_symlink():
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


# ---- tracefs ----

_PAGES = re.compile(
    r"dev[= ](?P<major>\d+):(?P<minor>\d+) ino[= ](?P<ino>[0-9a-f]+).*"
    r" ofs=(?P<first>\d+)(?:-(?P<last>\d+))?(?: order=(?P<order>\d+))?"
)
_FLUSH = re.compile(r"memcg_id=(?P<id>\d+).* force=(?P<force>\d) needs_flush=(?P<needed>\d)")
_EVENT = re.compile(r"\s*(?:.*)-(?P<pid>\d+)\s+\[\d+\]\s.*?\s(?P<order>\d+): (?P<name>\w+): (?P<fields>.*)")


@contextlib.contextmanager
def tracefs() -> Iterator[Path]:
    """The kernel's tracing directory: where it is mounted, else a mount of our own that nobody else sees.

    The mount is never attached to the file tree, it hangs on a file descriptor and goes with it, even if we are killed.
    Raises Unavailable.  Source: fsopen(2), fsmount(2).
    """
    for mount in trial.mounts():
        if mount.fstype == "tracefs" and os.access(mount.point, os.W_OK):
            yield Path(mount.point)
            return
    libc = ctypes.CDLL(None, use_errno=True)
    fsopen, fsconfig, fsmount = 430, 431, 432  # the same number on every architecture
    create, cloexec = 6, 1  # FSCONFIG_CMD_CREATE, FSOPEN_CLOEXEC and FSMOUNT_CLOEXEC

    def call(*arguments: object) -> int:
        result: int = libc.syscall(*arguments)
        if result < 0:
            reason = os.strerror(ctypes.get_errno())
            raise Unavailable(f"tracefs filemap events: cannot mount tracefs: {reason}; run as root (CAP_SYS_ADMIN)")
        return result

    context = call(fsopen, b"tracefs", cloexec)
    try:
        call(fsconfig, context, create, None, None, 0)
        mount_fd = call(fsmount, context, cloexec, 0)
    finally:
        os.close(context)
    try:
        yield Path(f"/proc/{os.getpid()}/fd/{mount_fd}")
    finally:
        os.close(mount_fd)


class _Instance:
    # A tracing instance of our own: its own buffers, switches and filters.
    def __init__(self, root: Path, buffer_mb: int) -> None:
        self._root, self._buffer_mb = root, buffer_mb
        self._formats: dict[str, re.Pattern[str]] = {}

    def __enter__(self) -> _Instance:
        try:
            self._path = Path(tempfile.mkdtemp(prefix=f"kernelnotes-{os.getpid()}-", dir=self._root / "instances"))
        except OSError as e:
            raise Unavailable(f"tracefs filemap events: no tracing instance: {e.strerror}; run as root") from e
        try:
            self.write("tracing_on", "0")
            self.write("trace_clock", "counter")
            self.write("options/overwrite", "0")
            self.write("buffer_size_kb", str(self._buffer_mb * 1024))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._path.rmdir()

    def write(self, file: str, text: str) -> None:
        try:
            (self._path / file).write_text(text)
        except OSError as e:
            raise CallFailed(e.errno, f"tracefs: write {text!r} to {file}: {e.strerror}") from e

    def enable(self, event: str, fields: re.Pattern[str]) -> None:
        # The kernel says how it prints an event: print a sample that way and see whether we would understand it.
        try:
            text = (self._path / "events" / event / "format").read_text()
        except OSError as e:
            raise Unavailable(f"tracefs filemap events: this kernel has no event {event}; it takes Linux 6.12") from e
        template = text.partition('print fmt: "')[2].partition('"')[0]
        if not fields.fullmatch(re.sub(r"%l*[dux]", "1", template)):
            raise Unavailable(f"tracefs filemap events: {event} prints {template!r} on this kernel, unknown to us")
        self._formats[event.partition("/")[2]] = fields
        self.write(f"events/{event}/enable", "1")

    def entries(self) -> int:
        return sum(self._stats("entries"))

    def lost(self) -> int:
        return sum(self._stats("overrun")) + sum(self._stats("dropped events"))

    def _stats(self, name: str) -> Iterator[int]:
        for stats in self._path.glob("per_cpu/cpu*/stats"):
            yield from (int(n) for n in re.findall(rf"^{name}: (\d+)", stats.read_text(), re.MULTILINE))

    def events(self) -> Iterator[tuple[int, int, str, re.Match[str]]]:
        """(place in the order, thread, event, its fields) of everything in the buffers."""
        with open(self._path / "trace", errors="replace") as trace:
            for line in trace:
                event = _EVENT.match(line)
                if event and event["name"] in self._formats:
                    fields = self._formats[event["name"]].fullmatch(event["fields"])
                    if fields:
                        yield int(event["order"]), int(event["pid"]), event["name"], fields


# ---- from trace lines to a recording ----


class _Inode(NamedTuple):
    device: str  # major:minor
    number: int


@dataclass(slots=True)
class _Event:
    order: int
    thread: int
    kind: int
    inode: _Inode
    first: int  # pages
    last: int


_NO_INODE = _Inode("", 0)  # of a flush


def _merge(accesses: _Instance, moves: _Instance, cgroup_id: int) -> list[_Event]:
    # What the two instances saw of our program's files, in order.
    ours = _accesses(_parse(accesses, _ACCESSES))
    threads = {event.thread for event in ours}
    touched = {event.inode for event in ours}
    inside: set[tuple[_Inode, int]] = set()  # pages that our program brought in of files it never reads: what it writes
    kept = ours
    for event in _parse(moves, _MOVES, cgroup_id):
        if event.kind == DELETE and event.thread not in threads:
            event.kind = DELETE_FOREIGN
        if event.kind != FLUSH and event.inode not in touched:
            pages = {(event.inode, page) for page in range(event.first, event.last + 1)}
            if event.kind == ADD and event.thread in threads:
                inside |= pages
            elif event.kind != ADD and pages <= inside:
                inside -= pages
            else:
                continue
        kept.append(event)
    return sorted(kept, key=lambda event: event.order)


def _parse(instance: _Instance, kinds: Mapping[str, int], cgroup_id: int = 0) -> Iterator[_Event]:
    kind_of = {event.partition("/")[2]: kind for event, kind in kinds.items()}
    for order, thread, name, fields in instance.events():
        if name not in kind_of:  # a fold of the whole machine's statistics (id 1) includes ours
            if int(fields["id"]) in (1, cgroup_id) and (fields["force"], fields["needed"]) != ("0", "0"):
                yield _Event(order, thread, FLUSH, _NO_INODE, 0, 0)
            continue
        first = int(fields["first"]) // PAGE_SIZE
        last = int(fields["last"]) // PAGE_SIZE if fields["last"] else first + (1 << int(fields["order"] or 0)) - 1
        inode = _Inode(f"{fields['major']}:{fields['minor']}", int(fields["ino"], 16))
        yield _Event(order, thread, kind_of[name], inode, first, last)


def _accesses(events: Iterable[_Event]) -> list[_Event]:
    """The accesses without what the kernel reports twice.

    A long read() takes its pages in batches and each event names everything from there to the end of the request: an
    event ends where the next batch begins (filemap_read()).  A fault that had to wait for the disk is run again
    (VM_FAULT_RETRY).
    """
    kept: list[_Event] = []
    before: dict[int, _Event] = {}  # per thread
    for event in events:
        previous = before.get(event.thread)
        before[event.thread] = event
        if previous and (event.kind, event.inode, event.last) == (previous.kind, previous.inode, previous.last):
            if event.kind == FAULT:
                continue
            if event.kind == GET_PAGES and event.first > previous.first:
                previous.last = event.first - 1
        kept.append(event)
    return kept


def _recording(
    events: list[_Event], directory: Path, memory: int, command: str, lost: int, counters: Mapping[str, int]
) -> Recording:
    found = _find({event.inode for event in events if event.kind != FLUSH}, directory)
    sizes: dict[_Inode, int] = {}  # and in order of appearance
    for event in events:
        if event.kind != FLUSH:  # what was requested may lie beyond the end of the file, what was there does not
            sure = (
                event.last + 1 if event.kind in (FAULT, ADD) or event.inode not in found else found[event.inode].pages
            )
            sizes[event.inode] = max(sizes.get(event.inode, 0), sure)
    number = {inode: i for i, inode in enumerate(sizes)}
    rows = [
        (e.kind, -1, 0, 0) if e.kind == FLUSH else (e.kind, number[e.inode], e.first, min(e.last, sizes[e.inode] - 1))
        for e in events
        if e.kind == FLUSH or e.first < sizes[e.inode]
    ]
    files = tuple(
        File(found[inode].name if inode in found else f"unnamed-{i}", sizes[inode]) for inode, i in number.items()
    )
    return recordings.from_events(
        rows,
        provenance=provenance(_printable(command)),
        memory=memory,
        page_size=PAGE_SIZE,
        files=files,
        lost=lost,
        counters=counters,
    )


def _find(wanted: set[_Inode], directory: Path) -> dict[_Inode, File]:
    """Names of the inodes that still have one: relative to `directory` or, outside it, to the root of the file tree."""
    found = {}
    for line in Path("/proc/partitions").read_text().splitlines()[2:]:  # a file system's own blocks, cached by device
        major, minor, _, name = line.split()
        for inode in wanted:
            if inode.number == int(major) << 20 | int(minor):
                found[inode] = File(f"dev/{name}", 0)
    for device in {inode.device for inode in wanted - set(found)}:
        numbers = {inode.number for inode in wanted if inode.device == device}
        tops = [m.point for m in trial.mounts() if m.device == device]
        if _device(directory) == device:
            tops.insert(0, str(directory.resolve()))
        for number, path in itertools.chain.from_iterable(_walk(top, numbers) for top in tops):
            if numbers <= {inode.number for inode in found if inode.device == device}:
                break
            relative = os.path.relpath(path, directory.resolve())
            name = os.path.relpath(path, "/") if relative.startswith("..") else relative
            with contextlib.suppress(FileNotFoundError):  # gone since
                size = os.stat(path, follow_symlinks=False).st_size
                found.setdefault(_Inode(device, number), File(_printable(name), -(-size // PAGE_SIZE)))
    return found


def _walk(top: str, wanted: set[int]) -> Iterator[tuple[int, str]]:
    # The files with wanted inode numbers in one file system, from `top` down.
    mounted = {mount.point for mount in trial.mounts()} - {top}
    folders = [top]
    while folders:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if entry.path not in mounted:
                        folders.append(entry.path)
                elif entry.inode() in wanted:
                    yield entry.inode(), entry.path


def _device(path: Path) -> str:
    number = path.stat().st_dev
    return f"{os.major(number)}:{os.minor(number)}"


def _printable(text: str) -> str:
    return text if text.isprintable() else ascii(text)[1:-1]
