"""Replay a trace on the running kernel, and let it count."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm import tqdm

from kernelnotes.errors import BadInput, CallFailed
from kernelnotes.live.origin import kernel, provenance
from kernelnotes.live.refault.cgroup import PAGE_SIZE, MemoryCgroup, counts
from kernelnotes.live.signals import Signals
from kernelnotes.refault import COUNTERS, Measured, Rules
from kernelnotes.refault.rules import running_kernel
from kernelnotes.traces import EXECUTABLE, Trace, TraceLike, as_trace

LEAST = 128  # pages; with much less the kernel finds nothing that it could reclaim, and kills the reader
MOST_INDEX = 2**42 // PAGE_SIZE  # pages in a file, 4 TiB: what ext4 can address is 16 TiB
_READER = Path(__file__).with_name("reader.py")
_MGLRU = Path("/sys/kernel/mm/lru_gen/enabled")


def measure(
    trace: TraceLike,
    memory: int,
    *,
    sample: int = 0,
    directory: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Measured:
    """Access the pages of `trace`, in a file, in a cgroup of `memory` pages, and return what the kernel counted.

    trace : accesses are read()s of 4096 bytes, or touches of a mapped byte (Trace.mapped); a page whose label is a
        number has that index in the file, others are numbered.  Refused are anonymous pages, and EXECUTABLE, for which
        readahead cannot be switched off.  Around a page that is mapped the kernel maps others that it has, within 16
        pages, which no rules here know; the page tables of mapped pages are charged
    memory : pages, at least LEAST; the kernel's bookkeeping of the file's pages is charged to them too
    sample : read memory.stat each time so many accesses are done.  That gives `series`, and makes the run repeatable:
        what the kernel decides on is up to date then.  0 does not disturb it
    directory : where the file is made, on a disk; by default that for temporary files
    Takes two seconds more than the reads themselves: so long the kernel may take to have all its counts together.

    Raises BadInput for arguments that are none, Unavailable, with the remedy, where no memory cgroup can be made, and
    CallFailed where the reader fails.  However it ends, the file, the cgroup and the reader are gone.  Warns where the
    kernel's multi-generational LRU is on: the rules in RULES are not the ones it follows then.
    """
    trace = as_trace(trace)
    _check(trace, memory, sample, directory)
    indices = trace.labels if trace.labels.dtype.kind in "iu" else np.arange(trace.unique)
    mglru = _MGLRU.exists() and int(_MGLRU.read_text(), 16) & 1 == 1
    if mglru:
        warnings.warn(
            "measure: MGLRU is switched on; no rules in RULES are those of this kernel. Classic lists: "
            f"echo n > {_MGLRU}",
            stacklevel=2,
        )
    with Signals() as signals, tempfile.TemporaryDirectory(prefix="kernelnotes-", dir=directory) as folder:
        data, order = Path(folder) / "data", Path(folder) / "order"
        with signals.allowed():
            _write(data, indices)
            ways = trace.mapped if len(trace.mapped) else 0
            order.write_bytes((indices[trace.pages].astype(np.int64) * 4 + ways).tobytes())
        with MemoryCgroup(memory) as cgroup:
            said = _run(cgroup, data, order, sample, len(trace), signals, progress)
        stats = [(done, counts(text)) for done, text in said["stats"]]
        times = np.fromfile(order, dtype=np.int64)
        version = cgroup.version
    return measured(trace, memory, sample, stats, times, version, mglru)


def _check(trace: Trace, memory: Any, sample: Any, directory: Any) -> None:
    for what, value, least in (("memory", memory, LEAST), ("sample", sample, 0)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise BadInput(f"measure: {what} is {value!r}, expected an integer of {least} or more")
    if trace.anon.any():
        raise BadInput(f"measure: {trace.name} has anonymous pages, expected pages of files only")
    if (trace.mapped == EXECUTABLE).any():
        raise BadInput(f"measure: {trace.name} has EXECUTABLE accesses, expected READ and MAPPED only")
    if trace.labels.dtype.kind in "iu" and trace.labels.max() >= MOST_INDEX:
        raise BadInput(f"measure: page {trace.labels.max()} of {trace.name}, expected pages below {MOST_INDEX}")
    if directory is not None and not Path(directory).is_dir():
        raise BadInput(f"measure: {directory} is no directory")


def _write(data: Path, indices: npt.NDArray[Any]) -> None:
    # Each page that will be read gets a block on the disk: the kernel would not read a hole.  Then out of the cache.
    ordered = np.sort(indices)
    runs = np.split(ordered, np.flatnonzero(np.diff(ordered) != 1) + 1)
    try:
        with open(data, "wb") as file:
            for run in runs:
                file.seek(int(run[0]) * PAGE_SIZE)
                left = len(run) * PAGE_SIZE
                while left:
                    left -= file.write(b"\x5a" * min(left, 1 << 20))
            file.flush()
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError as e:
        raise CallFailed(e.errno or 0, f"measure: write {len(indices)} pages to {data.parent}: {e.strerror}") from e


def _run(
    cgroup: MemoryCgroup, data: Path, order: Path, sample: int, accesses: int, signals: Signals, progress: bool
) -> dict[str, Any]:
    files = [str(path) for path in (data, order, cgroup.path / "cgroup.procs", cgroup.path / "memory.stat")]
    command = [sys.executable, "-I", "-S", str(_READER), *files, str(sample)]
    with tqdm(desc="measuring", total=accesses, unit=" accesses", disable=not progress, file=sys.stderr) as bar:
        reader = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            with signals.allowed():
                while True:
                    try:
                        out, err = reader.communicate(timeout=0.25)
                        break
                    except subprocess.TimeoutExpired:
                        bar.update(min(accesses, _reads(reader.pid)) - bar.n)
        finally:
            reader.kill()
            reader.wait()
        if reader.returncode:
            why = (err.strip().splitlines() or [f"status {reader.returncode}"])[-1]
            raise CallFailed(0, f"measure: the reader failed in a cgroup of {cgroup.pages} pages: {why}")
        bar.update(accesses - bar.n)
    found: dict[str, Any] = json.loads(out)
    return found


def _reads(pid: int) -> int:
    # How many read calls a process has made so far.  To look at memory.stat instead would change the outcome.
    with contextlib.suppress(OSError):
        return counts(Path(f"/proc/{pid}/io").read_text().replace(":", "")).get("syscr", 0)
    return 0


def measured(
    trace: Trace,
    memory: int,
    sample: int,
    stats: Sequence[tuple[int, Mapping[str, int]]],
    times: npt.NDArray[np.int64],
    version: int,
    mglru: bool,
) -> Measured:
    """The counts in a row of memory.stat: (accesses done, counters), the first before any access, the last at rest.

    times : nanoseconds per access.  As many of the longest as there were misses are taken for the misses.
    """
    _, before = stats[0]
    rows = [_counted(before, now, version) | {"access": done} for done, now in stats[1:]]
    end = rows[-1]
    ordered = np.sort(times)
    hits, misses = np.split(ordered, [len(ordered) - min(end["faults"], len(ordered))])
    name = f"{kernel()}{', MGLRU' if mglru else ''}"
    return Measured(
        trace=trace.name,
        rules=Rules(name, running_kernel, source="this kernel"),
        memory=int(memory),
        accesses=len(trace),
        **_counters(end),
        distances=np.zeros(0, dtype=np.int64),
        series=pd.DataFrame(rows[:-1] if sample else rows[-1:]),
        provenance=provenance(f"live.refault.measure({trace.name}, {memory}, sample={sample})"),
        sample_period=int(sample),
        hit_us=float(hits.mean()) / 1e3 if len(hits) else 0.0,
        miss_us=float(misses.mean()) / 1e3 if len(misses) else 0.0,
    )


def _counters(end: Mapping[str, Any]) -> dict[str, Any]:
    return {name: end.get(name) for name in COUNTERS}


def _counted(before: Mapping[str, int], now: Mapping[str, int], version: int) -> dict[str, Any]:
    """The counters of Replay from two memory.stat."""
    lengths = {name: now[f"{name}_file"] // PAGE_SIZE for name in ("inactive", "active")}
    since = {name: now[name] - before.get(name, 0) for name in now}
    told = {"refaults": since["workingset_refault_file"], "soft_faults": 0}
    if version == 1:
        return lengths | told | {"faults": since["pgpgin"], "evictions": since["pgpgout"]}
    evicted = since["pgsteal"]
    return (
        lengths
        | told
        | {"faults": since["file"] // PAGE_SIZE + evicted, "evictions": evicted}
        | {"activations": since["pgactivate"], "deactivations": since["pgdeactivate"]}
        | {"refault_activations": since["workingset_activate_file"]}
    )
