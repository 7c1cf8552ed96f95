"""Recordings: what comes back from a file is what went in, and a file that is anything else is refused by name."""

import gzip
import hashlib
import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernelnotes import recordings
from kernelnotes.errors import BadInput
from kernelnotes.provenance import Provenance
from kernelnotes.recordings import ADD, DELETE, DELETE_FOREIGN, FAULT, FLUSH, GET_PAGES, MAP_PAGES, File

FILES = (File("src/main.c", 9), File("pack-1f.pack", 5000))
EVENTS = [
    (MAP_PAGES, 0, 0, 8),
    (ADD, 1, 16, 31),
    (GET_PAGES, 1, 16, 18),
    (GET_PAGES, 1, 18, 18),
    (FLUSH, -1, 0, 0),
    (FAULT, 0, 3, 3),
    (DELETE, 1, 16, 23),
    (DELETE_FOREIGN, 1, 24, 24),
]


def make(events=EVENTS, files=FILES, **others):
    defaults = {"memory": 64, "page_size": 4096, "lost": 0, "counters": {"pgpgin": 3}}
    provenance = Provenance("live", "Linux 6.18.44", "git log", "2026-11-23")
    return recordings.from_events(events, files=files, provenance=provenance, **(defaults | others))


def columns(recording):
    return [getattr(recording, c).tolist() for c in ("kind", "file", "first", "last")]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "made.gz"
    recordings.write(make(), path)
    return path


def rewrite(path, change=None, body=None, **header):
    """The file with another header and body, their checksum put right."""
    first, old = gzip.decompress(path.read_bytes()).split(b"\n", 1)
    body = old if body is None else body
    text = json.dumps(json.loads(first) | {"sha256": hashlib.sha256(body).hexdigest()} | header).encode()
    path.write_bytes(gzip.compress((change(text) if change else text) + b"\n" + body))


def refused(path, *words):
    with pytest.raises(BadInput) as caught:
        recordings.read(path)
    for word in (str(path), *words):
        assert word in str(caught.value)


@st.composite
def any_recording(draw):
    names = draw(st.lists(st.text(st.characters(categories=["L", "N", "P"]), min_size=1), min_size=1, max_size=4))
    files = [File(name, draw(st.integers(1, 2**40))) for name in names]
    events = []
    for kind in draw(st.lists(st.integers(0, 6), max_size=30)):
        file = draw(st.integers(0, len(files) - 1))
        first = draw(st.integers(0, files[file].pages - 1))
        last = draw(st.integers(first, min(files[file].pages - 1, first + 1000)))
        events.append((kind, -1, 0, 0) if kind == FLUSH else (kind, file, first, last))
    return make(events, tuple(files), lost=draw(st.integers(0, 10**9)), memory=draw(st.integers(1, 2**40)))


@given(any_recording())
@settings(max_examples=50, deadline=None)
def test_what_is_read_is_what_was_written(recording):
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x.gz"
        recordings.write(recording, path)
        back = recordings.read(path)
    assert columns(back) == columns(recording)
    for same in ("memory", "page_size", "files", "lost", "counters"):
        assert getattr(back, same) == getattr(recording, same)
    assert back.provenance == Provenance("recorded", "Linux 6.18.44", "git log", "2026-11-23")


def test_other_programs_can_read_the_file(path):
    header, *lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    assert json.loads(header)["files"] == [["src/main.c", 9], ["pack-1f.pack", 5000]]
    assert lines == ["m 0 0 8", "a 1 16 31", "r 1 16 18", "r 1 18", "s", "f 0 3", "d 1 16 23", "x 1 24"]


def test_accesses_are_reads_and_faults_and_repeats_count_once():
    recording = make()
    base = FILES[0].pages
    assert recording.page_numbers().tolist() == [base + 16, base + 17, base + 18, 3]
    assert recording.page_numbers(repeats=True).tolist() == [base + 16, base + 17, base + 18, base + 18, 3]
    assert recording.page_numbers(fault_around=True)[:9].tolist() == list(range(9))
    assert [recording.page_of(n) for n in (0, 8, 9, 5008)] == [
        ("src/main.c", 0),
        ("src/main.c", 8),
        ("pack-1f.pack", 0),
        ("pack-1f.pack", 4999),
    ]
    with pytest.raises(BadInput, match="pages 0 to 5008"):
        recording.page_of(5009)


def test_a_recording_becomes_a_trace():
    trace = make().accesses("made")
    assert trace.pages.tolist() == [0, 1, 2, 3]
    assert trace.labels.tolist() == [25, 26, 27, 3]
    assert (trace.name, trace.provenance.kind) == ("made", "live")


def test_resident_pages_are_adds_minus_deletes():
    assert make().resident().tolist() == [0, 16, 16, 16, 16, 16, 8, 7]


def test_a_fault_repeated_is_two_accesses():
    assert make([(FAULT, 0, 3, 3), (FAULT, 0, 3, 3)]).page_numbers().tolist() == [3, 3]


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ((GET_PAGES, 2, 0, 0), "file outside the list of 2"),
        ((GET_PAGES, -1, 0, 0), "file outside"),
        ((FLUSH, 0, 0, 0), "file outside"),
        ((7, 0, 0, 0), "event 1"),
        ((GET_PAGES, 0, 9, 9), "does not have"),
        ((GET_PAGES, 0, 5, 4), "does not have"),
        ((GET_PAGES, 0, -1, 4), "does not have"),
        ((300, 0, 0, 0), "column kind"),
        ((GET_PAGES, 2**33, 0, 0), "column file"),
    ],
)
def test_events_that_cannot_be_are_refused(event, words):
    with pytest.raises(BadInput, match=words):
        make([EVENTS[0], event])


def test_every_truncation_is_refused(path):
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        refused(path, "line")


def test_a_flipped_bit_is_refused_or_changes_nothing(path):
    whole, want = path.read_bytes(), recordings.read(path)
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            back = recordings.read(path)
        except BadInput as e:
            message = str(e)
        else:  # gzip's time stamp, or the padding of its last byte
            assert columns(back) == columns(want)
            assert (back.provenance, back.files) == (want.provenance, want.files)
            message = str(path)
        assert str(path) in message


def test_a_damaged_body_line_is_named(path):
    for wrong in (b"q 0 0", b"r 0", b"r 0 -1", b"r 0 0 1 2", b"r  0 0", b"", b"r 0 x", b"r 0 " + b"9" * 5000):
        rewrite(path, body=b"m 0 0 8\n" + wrong + b"\n" + b"s\n" * 6)
        refused(path, "line 3", "expected event 2 of 8")
    rewrite(path, body=b"m 0 0 8\nr 7 0\n" + b"s\n" * 6)
    refused(path, "line 3", "file outside the list of 2")
    rewrite(path, body=b"m 0 0 8\nr 0 0 9\n" + b"s\n" * 6)
    refused(path, "line 3", "pages that its file does not have")


def test_missing_and_surplus_events_are_refused(path):
    rewrite(path, body=b"s\n" * 7)
    refused(path, "line 9", "the end of the file, expected event 8 of 8")
    rewrite(path, body=b"s\n" * 8 + b"s")
    refused(path, "line 10", "after the 8 events")
    rewrite(path, body=b"s\n" * 7 + b"s")
    refused(path, "line 9")
    rewrite(path, body=b"s\n" * 8, sha256="0" * 64)
    refused(path, "sha256")


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"version": 2}, "version 2, this release reads version 1"),
        ({"version": None}, "version None"),
        ({"format": "other"}, "no recording"),
        ({"events": 10**12}, "events is 1000000000000"),
        ({"events": -1}, "events is -1"),
        ({"events": 8.0}, "events is 8.0"),
        ({"events": True}, "events is True"),
        ({"memory_pages": 0}, "memory_pages is 0"),
        ({"page_size": 2**60}, "page_size"),
        ({"lost": "1"}, "lost is 1"),
        ({"files": "ab"}, "files"),
        ({"files": [["a", 2**62]]}, "files: pages of 'a'"),
        ({"files": [["a"]]}, "files"),
        ({"files": [["x" * 10000, 1]]}, "files: name 0"),
        ({"files": [["\x1b[2J", 1]]}, "files: name 0"),
        ({"files": [["\ud800", 1]]}, "files: name 0"),
        ({"files": [["a", 1]] * 300_000}, "files"),
        ({"counters": []}, "counters"),
        ({"counters": {"pgpgin": 1.5}}, "counter pgpgin"),
        ({"kernel": ""}, "kernel"),
        ({"date": None}, "date"),
    ],
)
def test_a_hostile_header_is_refused(path, header, words):
    rewrite(path, **header)
    refused(path, "line 1", words)


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"{", b"[" * 100_000, b'{"format": ' + b"9" * 9999, b"\xff\xfe"])
def test_a_header_that_is_none_is_refused(path, text):
    rewrite(path, change=lambda _: text)
    refused(path, "line 1", "no recording")


def test_more_pages_than_a_trace_may_have_are_refused_before_they_are_expanded(path):
    rewrite(path, body=b"r 0 0 1099511627775\n" * 8, files=[["a", 2**40]])
    refused(path, "line 2", "more than 200000000 pages")
    rewrite(path, body=b"r 0 0 59999999\n" * 8, files=[["a", 2**40]])
    refused(path, "line 5", "more than 200000000 pages")


def test_what_unpacks_to_far_more_is_not_unpacked(path):
    rewrite(path, body=b"s" * 50_000_000)
    refused(path, "line 2")
    path.write_bytes(gzip.compress(b" " * 100_000_000))
    refused(path, "line 1")


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 100, b"PK\x03\x04 not gzip", b'{"format": "kernelnotes-recording"}\n']
)
def test_what_is_not_gzip_is_refused(path, content):
    path.write_bytes(content)
    refused(path)


def test_writing_is_all_or_nothing(path, monkeypatch):
    before = path.read_bytes()
    with pytest.raises(BadInput, match=r"made\.gz: cannot be written: files: name 0"):
        recordings.write(make(files=(File("a\nb", 9), FILES[1])), path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with suppress(OSError):
        recordings.write(make(EVENTS[:2]), path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_an_unknown_name_lists_the_known():
    with pytest.raises(BadInput, match=f"'nothing' is unknown, known are: {', '.join(recordings.names())}"):
        recordings.load("nothing")


def test_the_package_stays_below_two_megabytes():
    folder = Path(recordings.__file__).parent
    assert sum(f.stat().st_size for f in folder.glob("*.gz")) < 2_000_000


@pytest.mark.parametrize("name", recordings.names())
def test_a_packaged_recording_is_complete_and_names_no_machine(name):
    recording = recordings.load(name)
    assert recording.provenance.kind == "recorded"
    assert recording.provenance.kernel.startswith("Linux ")
    assert recording.lost == 0
    assert recording.resident().max() <= recording.memory
    assert len(np.unique(recording.page_numbers())) > 5000
    for file in recording.files:
        assert not file.name.startswith(("/", "root/", "home/", "work/", "tmp/"))


@pytest.mark.parametrize("name", recordings.names())
def test_pages_of_a_packaged_recording_are_added_before_they_are_read(name):
    recording = recordings.load(name)
    resident, early, reads = set(), 0, 0
    for kind, file, first, last in zip(*columns(recording), strict=True):
        pages = {(file, page) for page in range(first, last + 1)}
        if kind == ADD:
            assert not pages & resident
            resident |= pages
        elif kind in (DELETE, DELETE_FOREIGN):
            resident -= pages
        elif kind == GET_PAGES:
            early, reads = early + len(pages - resident), reads + len(pages)
    assert early < reads / 100  # system libraries, cached before the recording began
