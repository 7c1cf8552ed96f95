"""What a running kernel counted while one program read pages of one file in a memory cgroup: many runs, known accesses.

Every access was a pread() of 4096 bytes from a file on disk, with readahead off (POSIX_FADV_RANDOM), by a program whose
own memory was locked and outside the cgroup.  Two inputs that the kernel does not show in its counters came from
tracepoints: when it brought its memory statistics up to date, and which pages somebody from outside evicted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kernelnotes.provenance import Provenance
from kernelnotes.recordings.stored import _origin, _stored

if TYPE_CHECKING:
    from kernelnotes.traces import Trace

Pages = npt.NDArray[np.uint32]


@dataclass(frozen=True, eq=False, kw_only=True)
class KernelRun:
    """One run on a real kernel.

    workload, params, seed : which accesses, see `trace`
    memory : limit of the cgroup in pages of 4096 bytes, its bookkeeping included
    sample_period : somebody read memory.stat each time so many accesses were done; 0: nobody did
    counters : what the kernel counted, as memory.stat and the tracepoints name it
    flushes : access indices before which the statistics were brought up to date, by the kernel and by that reader
    foreign : pairs of an access index and a page that somebody from outside evicted before it
    """

    id: str
    workload: str
    params: Mapping[str, Any]
    seed: int
    memory: int
    sample_period: int
    counters: Mapping[str, int]
    flushes: tuple[int, ...]
    foreign: tuple[tuple[int, int], ...]
    provenance: Provenance

    def trace(self) -> Trace:
        """The accesses: they follow from workload, params and seed."""
        from kernelnotes.traces import Trace

        return Trace.of(_WORKLOADS[self.workload](self.seed, **self.params), name=self.name, provenance=self.provenance)

    @property
    def name(self) -> str:
        """The workload in words."""
        return f"{self.workload}({', '.join(f'{name} {value}' for name, value in self.params.items())})"


def kernel_runs() -> tuple[KernelRun, ...]:
    """The runs that come with the package."""
    stored = _stored("kernel-runs")
    origin = _origin(stored)
    return tuple(_run(row, origin) for row in stored["runs"])


def _run(row: dict[str, Any], origin: Provenance) -> KernelRun:
    accesses, period = row.pop("accesses"), row["sample_period"]
    sampled = range(period, accesses + 1, period) if period else ()
    flushes = tuple(sorted((*row.pop("flushes"), *sampled)))
    foreign = tuple((at, page) for at, page in row.pop("foreign"))
    return KernelRun(**row, flushes=flushes, foreign=foreign, provenance=origin)


# ------------------------------------------------------------------------------------- the workloads


def _loop(seed: int, pages: int, passes: int) -> Pages:
    return np.tile(np.arange(pages, dtype=np.uint32), passes)


def _uniform(seed: int, pages: int, n: int) -> Pages:
    return np.random.default_rng(seed).integers(0, pages, n, dtype=np.uint32)


def _zipf(seed: int, pages: int, n: int, s: float) -> Pages:
    random = np.random.default_rng(seed)
    share = np.cumsum(1.0 / np.arange(1, pages + 1) ** s)
    share /= share[-1]
    ranks = np.searchsorted(share, random.random(n), side="right")
    page_of_rank = random.permutation(pages).astype(np.uint32)
    chosen: Pages = page_of_rank[np.minimum(ranks, pages - 1)]
    return chosen


def _hot_scan(seed: int, hot: int, scan: int, warm: int, n: int, scan_frac: float) -> Pages:
    random = np.random.default_rng(seed)
    before = random.integers(0, hot, warm, dtype=np.uint32)
    scanning = random.random(n) < scan_frac
    number = np.cumsum(scanning) - 1
    then = random.integers(0, hot, n, dtype=np.uint32)
    once = scanning & (number < scan)
    then[once] = hot + number[once]
    return np.concatenate([before, then])


def _shift(seed: int, a_pages: int, b_pages: int, n_a: int, b_passes: int, kind: str) -> Pages:
    random = np.random.default_rng(seed)
    old = random.integers(0, a_pages, n_a, dtype=np.uint32)
    if kind == "loop":
        new = a_pages + _loop(seed, b_pages, b_passes)
    else:
        new = random.integers(a_pages, a_pages + b_pages, b_passes * b_pages, dtype=np.uint32)
    return np.concatenate([old, new.astype(np.uint32)])


def _mix(seed: int, loop_pages: int, zipf_pages: int, n: int, s: float, loop_frac: float) -> Pages:
    looping = np.random.default_rng(seed).random(n) < loop_frac
    often = loop_pages + _zipf(seed + 1, zipf_pages, n, s)
    return np.where(looping, (np.cumsum(looping) - 1) % loop_pages, often).astype(np.uint32)


_WORKLOADS: Mapping[str, Callable[..., Pages]] = {
    "loop": _loop,
    "zipf": _zipf,
    "uniform": _uniform,
    "hot_scan": _hot_scan,
    "shift": _shift,
    "mix": _mix,
}
