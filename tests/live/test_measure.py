"""The running kernel against the model: the same accesses in a memory cgroup and under `linux-6.18`."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from kernelnotes import refault, traces
from kernelnotes.errors import BadInput, CallFailed, Unavailable
from kernelnotes.live.refault import MemoryCgroup, cgroup, measure, measurement, reader
from kernelnotes.traces import Trace

MEMORY = 4096
WORKLOADS = {
    "loop": traces.cyclic(pages=4915, laps=6),
    "zipf": traces.zipf(pages=16384, n=80_000, s=1.0, seed=1),
    "scan": traces.scan_over_hot(hot=3000, scan=12_288, n=60_000, share=0.35, seed=1),
    "shift": traces.shift(old=3000, new=3000, laps=6, passes=10),
    "mix": traces.mix(loop=5000, pages=8192, n=50_000, s=1.0, seed=1),
}
by_workload = pytest.mark.parametrize("workload", WORKLOADS)
live = pytest.mark.needs("cgroup memory")


@pytest.fixture(autouse=True)
def nothing_left_behind():
    def left():
        files = set(Path(tempfile.gettempdir()).glob("kernelnotes-*"))
        return files | set(Path("/sys/fs/cgroup").rglob("kernelnotes-*"))

    before = left()
    yield
    assert left() <= before


@live
def test_mapped_pages_are_predicted_nearer_than_if_they_were_read():
    pages = 16 * traces.zipf(9000, 40_000, s=1.0, seed=1).pages.astype(np.int64)  # no two within what a fault maps
    trace = Trace.of(pages, "zipf, mapped", mapped=traces.MAPPED)
    measured = measure(trace, MEMORY, sample=512, progress=False)
    page_tables = len(np.unique(pages // 512))
    told, as_read = (
        refault.replay(t, MEMORY - page_tables, "linux-6.18", keep="counts", flushes=measured.flushes)
        for t in (trace, Trace.of(pages))
    )
    assert abs(told.faults - measured.faults) < 0.15 * measured.faults
    assert abs(told.faults - measured.faults) < 0.8 * abs(as_read.faults - measured.faults)


@live
@by_workload
def test_what_is_watched_is_predicted(workload):
    trace = WORKLOADS[workload]
    measured = measure(trace, MEMORY, sample=512, progress=False)
    [told] = measured.predicted(trace).to_dict("records")
    assert measured.provenance.kind == "live"
    assert measured.accesses == measured.hits + measured.faults == len(trace)
    assert abs(told["faults"] - measured.faults) <= 0.03 * measured.faults
    assert abs(told["refaults"] - measured.refaults) <= max(400, 0.05 * measured.refaults)
    assert len(measured.series) == len(trace) // 512
    lengths = measured.series["inactive"] + measured.series["active"]
    assert 0.9 * MEMORY < lengths.iloc[-1] <= MEMORY
    assert refault.replay(trace, MEMORY, "lru", keep="counts").faults != measured.faults


@live
@pytest.mark.parametrize("workload", ["zipf", "scan", "shift"])  # those for which it matters when the kernel flushes
def test_what_is_not_watched_lies_within_what_the_phases_of_its_clock_allow(workload):
    trace = WORKLOADS[workload]
    for _ in range(2):  # somebody from outside may evict pages of ours
        measured = measure(trace, MEMORY, progress=False)
        told = measured.predicted(trace)["faults"]
        if 0.98 * told.min() <= measured.faults <= 1.02 * told.max():
            break
    assert 0.98 * told.min() <= measured.faults <= 1.02 * told.max()
    assert len(measured.series) == 1
    assert 0 <= measured.hit_us < measured.miss_us


@live
def test_a_page_is_found_where_its_label_says_and_a_small_loop_never_refaults(tmp_path):
    pages = np.tile(np.array([7, 1_000_000, 5, 2**28]), 500)
    measured = measure(pages, 256, sample=100, directory=tmp_path, progress=False)
    assert (measured.faults, measured.refaults, measured.evictions) == (4, 0, 0)
    assert not list(tmp_path.iterdir())


def test_pages_brought_in_are_counted_from_either_version_of_memory_stat():
    page = os.sysconf("SC_PAGE_SIZE")
    for text, pages in ((b"pgpgin 12\npgpgout 5\n", 12), (b"file %d\npgsteal 3\n" % (4 * page), 7)):
        buffer = bytearray(100)
        buffer[: len(text)] = text
        assert reader.brought_in(buffer) == pages


@live
def test_statistics_that_never_come_are_told_and_not_taken_for_none(monkeypatch, tmp_path):
    text = Path(reader.__file__).read_text().replace("FLUSH_S = 2.2", "FLUSH_S = 0").replace(">= least", "> 10**9")
    patched = tmp_path / "reader.py"
    patched.write_text(text)
    monkeypatch.setattr(measurement, "_READER", patched)
    with pytest.raises(CallFailed, match=r"the kernel has counted \d+ of at least 50 pages read in"):
        measure(traces.cyclic(50, 2), 4096, directory=tmp_path, progress=False)


def test_what_cannot_be_measured_is_refused(tmp_path):
    for wrong, said in (
        ((traces.cyclic(10, 2), 20), "memory is 20, expected an integer of 128 or more"),
        ((traces.cyclic(10, 2), 4096.5), r"memory is 4096.5, expected"),
        ((Trace.of(["a", "b"], mapped=traces.EXECUTABLE), 4096), "EXECUTABLE accesses"),
        ((["a", "b"], 4096, -1), "sample is -1"),
        ((traces.Trace.of(["a", "b"], anon=["a"]), 4096), "anonymous pages"),
        (([2**62], 4096), "expected pages below"),
        (([], 4096), "empty"),
    ):
        trace, memory, *sample = wrong
        with pytest.raises(BadInput, match=said):
            measure(trace, memory, sample=sample[0] if sample else 0)
    with pytest.raises(BadInput, match="is no directory"):
        measure([1, 2], 4096, directory=tmp_path / "missing")


@live
def test_a_disk_without_room_is_told_and_nothing_stays(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(CallFailed, match=r"write 1000 pages to .*: File too large"):
            measure(traces.cyclic(1000, 2), 4096, directory=tmp_path, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


@live
def test_a_cgroup_that_somebody_removes_and_a_reader_that_is_killed_are_told(monkeypatch, tmp_path):
    def enter(self):
        made = MemoryCgroup.__enter__(self)
        self.path.rmdir()
        return made

    monkeypatch.setattr(measurement, "MemoryCgroup", type("Removed", (MemoryCgroup,), {"__enter__": enter}))
    with pytest.raises(CallFailed, match=r"the reader failed in a cgroup of 4096 pages: .*No such file"):
        measure(traces.cyclic(100, 2), 4096, directory=tmp_path, progress=False)
    monkeypatch.undo()

    def kill(self):
        made = MemoryCgroup.__enter__(self)

        def soon():
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                pids = (self.path / "cgroup.procs").read_text().split()
                if pids:
                    os.kill(int(pids[0]), signal.SIGKILL)
                    return
                time.sleep(0.01)

        threading.Thread(target=soon, daemon=True).start()
        return made

    monkeypatch.setattr(measurement, "MemoryCgroup", type("Killing", (MemoryCgroup,), {"__enter__": kill}))
    with pytest.raises(CallFailed, match="status -9"):
        measure(traces.cyclic(3000, 20), 4096, directory=tmp_path, progress=False)


@live
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("delay", [0.0, 0.5])
def test_an_interrupt_leaves_nothing(signum, delay, tmp_path):
    program = """
from kernelnotes import traces
from kernelnotes.live.refault import measure
print("it begins", flush=True)
measure(traces.cyclic(5000, 100), 4096, progress=False)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    ) as process:
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signum)
        assert process.wait(timeout=60) in (-signum, 128 + signum)
    assert not list(tmp_path.iterdir())


def test_mglru_is_told(monkeypatch, tmp_path):
    switch = tmp_path / "enabled"
    switch.write_text("0x0007\n")
    monkeypatch.setattr(measurement, "_MGLRU", switch)
    monkeypatch.setattr(measurement, "_run", lambda *_: (_ for _ in ()).throw(CallFailed(0, "not run")))
    monkeypatch.setattr(measurement, "MemoryCgroup", lambda pages: cgroup.contextlib.nullcontext())
    with (
        pytest.warns(UserWarning, match="MGLRU is switched on; no rules in RULES are those"),
        pytest.raises(CallFailed),
    ):
        measure([1, 2], 4096)
    counted = measurement.measured(traces.cyclic(2, 1), 128, 0, [(0, STAT_1), (2, STAT_1)], np.ones(2, int), 1, True)
    assert counted.rules.name.endswith("MGLRU")
    with pytest.raises(BadInput, match="rules of a running kernel"):
        refault.replay([1, 2], 1, counted.rules)


# --- Version 2, by its documentation: no kernel here mounts it with the memory controller. ----------------------------

STAT_1 = {"pgpgin": 3, "pgpgout": 1, "workingset_refault_file": 0, "inactive_file": 8192, "active_file": 4096}
STAT_2 = """anon 0
file {file}
inactive_file {inactive}
active_file {active}
workingset_refault_file {refaults}
workingset_activate_file {activated}
pgsteal {stolen}
pgactivate 7
pgdeactivate 5
"""


def stat_2(file, inactive, active, refaults, activated, stolen):
    pages = {"file": 4096 * file, "inactive": 4096 * inactive, "active": 4096 * active}
    return cgroup.counts(STAT_2.format(**pages, refaults=refaults, activated=activated, stolen=stolen))


def test_version_2_tells_activations_too():
    stats = [(0, stat_2(1, 1, 0, 0, 0, 0)), (4, stat_2(9, 6, 3, 1, 1, 2)), (8, stat_2(11, 7, 4, 3, 2, 10))]
    counted = measurement.measured(traces.cyclic(20, 1), 128, 4, stats, np.arange(20), 2, False)
    assert counted.faults == (11 - 1) + 10
    assert (counted.refaults, counted.refault_activations, counted.evictions) == (3, 2, 10)
    assert (counted.activations, counted.deactivations) == (0, 0)  # of these both stats say the same
    assert counted.series[["inactive", "active"]].to_numpy().tolist() == [[6, 3]]


class Folder(type(Path())):
    """A cgroupfs that is not one: files appear with a folder, and go with it."""

    def mkdir(self, *arguments, **options):
        super().mkdir(*arguments, **options)
        for name in ("memory.max", "memory.swap.max", "memory.stat", "cgroup.procs", "cgroup.kill"):
            (self / name).write_text("")

    def rmdir(self):
        shutil.rmtree(self)


def test_version_2_gets_its_limits_and_its_end(tmp_path):
    with MemoryCgroup(1000, above=(2, Folder(tmp_path))) as made:
        assert (made.path / "memory.max").read_text() == "4096000"
        assert (made.path / "memory.swap.max").read_text() == "0"
        made.enter()
        assert (made.path / "cgroup.procs").read_text() == "0"
        killed = made.path / "cgroup.kill"
        made._kill()
        assert killed.read_text() == "1"
    assert not list(tmp_path.iterdir())


def test_where_no_hierarchy_is_mounted_it_says_how_to_get_one(monkeypatch):
    monkeypatch.setattr(cgroup.trial, "mounts", list)
    with pytest.raises(Unavailable, match="no mounted control group hands on the memory controller; as root"):
        MemoryCgroup(1000)
