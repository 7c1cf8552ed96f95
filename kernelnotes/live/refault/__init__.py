"""The page cache of the running kernel: recorded from tracepoints (`record`), or measured by counters (`measure`)."""

from kernelnotes.live.refault.cgroup import MemoryCgroup
from kernelnotes.live.refault.measurement import measure
from kernelnotes.live.refault.recorder import drop, record, tracefs

__all__ = ["MemoryCgroup", "drop", "measure", "record", "tracefs"]
