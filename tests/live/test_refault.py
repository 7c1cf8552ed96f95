"""The recorder against a program whose reads we know, on the running kernel."""

import itertools
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kernelnotes.errors import BadInput, CallFailed, Unavailable
from kernelnotes.live import refault
from kernelnotes.live.origin import kernel
from kernelnotes.live.refault import recorder
from kernelnotes.recordings import ADD, DELETE, DELETE_FOREIGN, GET_PAGES

pytestmark = pytest.mark.needs("cgroup memory", "filemap events")

PAGES = 1500
READER = """
import os, random
random.seed(1)
data = os.open("data", os.O_RDONLY)
os.posix_fadvise(data, 0, 0, os.POSIX_FADV_RANDOM)
for lap in range(2):
    for page in random.sample(range(1500), 1500):
        os.pread(data, 4096, 4096 * page)
"""


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "data").write_bytes(os.urandom(4096 * PAGES))
    return tmp_path


@pytest.fixture(autouse=True)
def nothing_left_behind():
    before = leftovers()
    yield
    deadline = time.monotonic() + 5
    while leftovers() - before and time.monotonic() < deadline:  # what others make meanwhile goes away again
        time.sleep(0.1)
    assert not leftovers() - before


def leftovers():
    """Cgroups, tracing instances, mounts that the recorder could leave."""
    with refault.tracefs() as root:
        instances = {p.name for p in (root / "instances").iterdir() if p.name.startswith("kernelnotes-")}
    cgroups = {str(p) for p in Path("/sys/fs/cgroup").rglob("kernelnotes-*")}
    return instances | cgroups | set(Path("/proc/self/mountinfo").read_text().splitlines())


def of_data(recording, *kinds):
    """(kind, first, last) of the events of the file that the program reads."""
    [number] = [i for i, file in enumerate(recording.files) if file.name == "data"]
    wanted = (recording.file == number) & np.isin(recording.kind, kinds)
    return np.column_stack([recording.kind, recording.first, recording.last])[wanted].tolist()


def record(directory, program=READER, memory=2000, cold=True, **options):
    command = [sys.executable, "-S", "-c", program]
    dropped = [directory] if cold else []
    return refault.record(command, memory, directory=directory, cold=dropped, buffer_mb=8, progress=False, **options)


def test_the_recording_is_what_the_program_did(directory):
    recording = record(directory)
    assert recording.lost == 0
    assert recording.provenance.kind == "live"
    assert recording.provenance.kernel == kernel()

    random.seed(1)
    read = [page for _ in range(2) for page in random.sample(range(PAGES), PAGES)]
    names = (recording.page_of(number) for number in recording.page_numbers(repeats=True).tolist())
    assert [page for name, page in names if name == "data"] == read


def test_misses_and_evictions_follow_from_the_adds_and_deletes(directory):
    recording = record(directory, memory=1200)  # the interpreter takes about 1000 of them
    resident, brought_in = set(), 0
    for kind, first, last in of_data(recording, GET_PAGES, ADD, DELETE, DELETE_FOREIGN):
        pages = set(range(first, last + 1))
        if kind == GET_PAGES:
            assert pages <= resident
        elif kind == ADD:
            assert not pages & resident
            resident |= pages
            brought_in += len(pages)
        else:
            assert pages <= resident
            resident -= pages
    assert brought_in > PAGES  # one lap cold, and most of the next one again
    assert recording.resident().max() < 1200


def test_a_long_read_is_recorded_once_although_the_kernel_reports_it_in_batches(directory):
    # Cached: a batch that ends at a page on its way from the disk raises no event.
    recording = record(directory, "import os; os.read(os.open('data', os.O_RDONLY), 4096 * 400 + 1)", cold=False)
    pages = [page for _, first, last in of_data(recording, GET_PAGES) for page in range(first, last + 1)]
    assert pages == list(range(401))


def test_children_are_recorded_and_a_read_past_the_end_ends_with_the_file(directory):
    recording = record(directory, "import os; os.system('cat data >/dev/null')", cold=False)
    pages = [page for _, first, last in of_data(recording, GET_PAGES) for page in range(first, last + 1)]
    assert [page for page, _ in itertools.groupby(pages)] == list(range(PAGES))


def test_the_reader_of_a_file_that_is_gone_is_recorded_too(directory):
    program = "import os; f = os.open('data', os.O_RDONLY); os.unlink('data'); os.read(f, 40960)"
    recording = record(directory, program, cold=False)
    [unnamed] = [f for f in recording.files if f.name.startswith("unnamed-")]
    assert unnamed.pages >= 10


def test_too_small_a_buffer_says_how_many_events_were_lost(directory, monkeypatch):
    shrunk = recorder._Instance.write

    def write(self, file, text):
        shrunk(self, file, "64" if file == "buffer_size_kb" else text)

    monkeypatch.setattr(recorder._Instance, "write", write)
    assert record(directory).lost > 0


def test_a_command_that_fails_or_does_not_exist_is_an_error(directory):
    with pytest.raises(CallFailed, match="failed with status 3"):
        record(directory, "raise SystemExit(3)")
    with pytest.raises(CallFailed, match="no-such-program"):
        refault.record(["no-such-program"], 2000, progress=False)
    with pytest.raises(BadInput, match="empty"):
        refault.record([], 2000)
    with pytest.raises(BadInput, match="nowhere: no such file"):
        refault.record(["true"], 2000, cold=["nowhere"], progress=False)
    with pytest.raises(BadInput, match="5 pages"):
        refault.record(["true"], 5)
    for memory in (4096.5, "4096", True):
        with pytest.raises(BadInput, match=r"memory is .*, expected a whole number of pages"):
            refault.record(["true"], memory)
    with pytest.raises(BadInput, match=r"the command is 'git log', expected a list"):
        refault.record("git log", 4096)
    with pytest.raises(BadInput, match=r"cold is 'README.md', expected a list"):
        refault.record(["true"], 4096, cold="README.md")
    with pytest.raises(BadInput, match="nowhere is no directory"):
        refault.record(["true"], 4096, directory="nowhere")


def test_a_process_left_running_is_ended(directory):
    before = time.monotonic()
    record(directory, "import subprocess; subprocess.Popen(['sleep', '300'])")
    assert time.monotonic() - before < 60


@pytest.mark.parametrize(
    ("signum", "status"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 128 + signal.SIGTERM)]
)
@pytest.mark.parametrize("delay", [0.0, 0.3])
def test_an_interrupt_leaves_nothing(directory, signum, status, delay):
    program = """
from kernelnotes.live import refault
print("set-up begins", flush=True)
refault.record(["sh", "-c", "echo it runs; sleep 300 & sleep 300"], 2000)
"""
    recorder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    wait_for = 1 if delay == 0 else 2  # lines: in the middle of the set-up, or of the run
    for _ in range(wait_for):
        recorder.stdout.readline()
    time.sleep(delay)
    recorder.send_signal(signum)
    recorder.send_signal(signum)
    # before the recorder catches signals, and after it has cleaned up, SIGTERM ends the process itself
    assert recorder.wait(timeout=60) in (status, -signum)


def test_an_unknown_event_format_is_refused(monkeypatch):
    monkeypatch.setattr(recorder, "_PAGES", re.compile("other"))
    with pytest.raises(Unavailable, match=r"mm_filemap_get_pages prints 'dev=.*unknown"):
        refault.record(["true"], 2000, progress=False)
