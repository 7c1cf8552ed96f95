"""Traces in files of other tools: read whole and in parts, malformed, damaged, packed, written."""

import contextlib
import gzip
import warnings

import libcachesim
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from kernelnotes import recordings, refault, traces
from kernelnotes.errors import BadInput, CallFailed, Unavailable
from kernelnotes.traces import files, formats
from kernelnotes.traces.chunks import Chunks, Numbering

MSR = """128166372003061629,hm,1,Read,383496192,32768,413
128166372016382155,hm,1,Write,2822144,4096,1106
128166372026382245,hm,0,Read,1000,512,120
128166372026382245,hm,1,Read,383496192,1,120
"""
BLKPARSE = """  8,0    3        1     0.000000000   697  G   W 223490 + 8 [kjournald]
  8,0    3        2     0.000001829   697  P   R [kjournald]
  8,0    3        3     0.000002197   697  Q   W 223490 + 8 [kjournald]
  8,16   0        4     0.000003000   700  Q   R 16 + 8 [cat]
  8,0    3        5     0.000007138   697  C   W 223490 + 8 [0]
CPU0 (8,0):
 Reads Queued:           0,        0KiB	 Writes Queued:          12,       48KiB
"""
TRACEFS = """# tracer: nop
#
             cat-1234    [000] .....   100.000001: mm_filemap_add_to_page_cache: dev 8:1 ino 1f pfn=0x1 ofs=0 order=0
             cat-1234    [000] .....   100.000002: mm_filemap_get_pages: dev=8:1 ino=1f ofs=0-16383
             cat-1234    [000] .....   100.000003: mm_filemap_get_pages: dev=8:1 ino=1f ofs=8192-16383
           a b c-77      [001] d..1.   100.000004: mm_filemap_fault: dev=8:1 ino=2a ofs=4096
           a b c-77      [001] d..1.   100.000005: mm_filemap_fault: dev=8:1 ino=2a ofs=4096
             cat-1234    [000] .....   100.000006: mm_filemap_map_pages: dev=8:1 ino=1f ofs=0-4095
"""
PERF = """cat  1234 [000]   100.000002: filemap:mm_filemap_get_pages: dev=8:1 ino=1f ofs=0-16383
cat  1234 [000]   100.000003:        filemap:mm_filemap_get_pages: dev=8:1 ino=1f ofs=8192-16383
a b c  77 [001]   100.000004:        filemap:mm_filemap_fault: dev=8:1 ino=2a ofs=4096
"""
MISSES = """cat-1234  [000] .....   100.000001: mm_filemap_add_to_page_cache: dev 8:1 ino 1f pfn=0x1 ofs=8192 order=2
"""
PLACE = formats.PLACE
KNOWN = {
    "msr": (MSR, [*range(93627, 93635), 689, PLACE, 93627]),
    "blkparse": (BLKPARSE, [27936, 27937, PLACE + 2]),
    "filemap": (TRACEFS, [0, 1, 2, 3, PLACE + 1]),
    "plain": ("5\n7\n\n# a comment\n5\r\n9", [5, 7, 5, 9]),
    "csv": ("time,page\n1,5\n2,7\n3,5\n", [5, 7, 5]),
}


def labels(trace):
    return trace.labels[trace.pages].tolist()


def read_quietly(path, format=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return traces.read(path, format)


@pytest.fixture
def file(tmp_path):
    def make(content, name="trace"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return make


@pytest.mark.parametrize("name", KNOWN)
def test_a_format_is_recognised_by_what_is_in_it(name, file):
    text, pages = KNOWN[name]
    path = file(text)
    assert traces.open(path).format == name
    assert labels(traces.read(path)) == pages
    assert labels(traces.read(path, format=name)) == pages
    for pack in (gzip.compress, zstandard.compress):
        assert labels(traces.read(file(pack(text.encode()), "packed"))) == pages


def test_perf_script_says_what_tracefs_says_and_misses_are_taken_where_nothing_else_is_known(file):
    assert labels(traces.read(file(PERF))) == [0, 1, 2, 3, PLACE + 1]
    assert labels(traces.read(file(MISSES))) == [2, 3, 4, 5]


def test_columns_are_named_numbered_or_guessed(file):
    text = "when,dev,lba,bytes\n1,a,0,8192\n2,b,4096,1\n3,a,4095,2\n"
    columns = {"offset": "lba", "size": "bytes", "file": "dev"}
    assert labels(traces.read(file(text), columns=columns)) == [0, 1, PLACE + 1, 0, 1]
    bare = text.partition("\n")[2]
    assert labels(traces.read(file(bare), "csv", {"offset": 2, "size": 3, "file": 1})) == [0, 1, PLACE + 1, 0, 1]
    assert labels(traces.read(file("id,offset\n3,1\n4,1\n"))) == [3, 4]
    assert labels(traces.read(file("offset,size\n4096,8192\n"))) == [1, 2]
    for wrong, said in (
        ({"offset": "sector"}, "no column 'sector' for the offset, the header is when,dev,lba,bytes"),
        ({"size": "bytes"}, "expected a column for the page, or one for the offset"),
        ({"page": 9}, "no column 9 for the page"),
        ({"lba": 2}, "columns: 'lba', expected page, offset"),
        (None, "no column is called page or offset"),
    ):
        with pytest.raises(BadInput, match=said):
            traces.read(file(text), columns=wrong)


def test_malformed_lines_are_left_out_counted_and_told_by_number(file):
    path = file(MSR + "128166372026382245,hm,1,Read,x,1,120\n1,2\n" + MSR)
    chunks = traces.open(path)
    with pytest.warns(UserWarning, match=r"trace: 2 malformed lines, the first is 5: b'x' is no number from 0 up"):
        assert labels(chunks.trace()) == KNOWN["msr"][1] * 2
    assert [line for line, _ in chunks.first_malformed] == [5, 6]
    huge = f"1,hm,1,Read,0,{2**62},413\n"
    with pytest.warns(UserWarning, match="1 malformed lines, the first is 2: 4611686018427387904 bytes from 0 are too"):
        traces.read(file(MSR[: MSR.index("\n") + 1] + huge))
    for bad in ("-3", "1_0", "1.5", "9" * 20, "x"):
        with pytest.warns(UserWarning, match="1 malformed lines, the first is 3"):
            assert labels(traces.read(file(f"1\n2\n{bad}\n4\n"), "plain")) == [1, 2, 4]


@pytest.mark.parametrize("chunk", [1, 7, 100_000])
def test_parts_make_the_whole(chunk, file):
    trace = traces.zipf(500, 5000, seed=1)
    path = file("\n".join(map(str, trace)))
    parts = list(traces.open(path, chunk=chunk))
    assert np.concatenate(parts).tolist() == list(trace)
    whole = traces.read(path)
    assert np.array_equal(whole.pages, trace.pages)
    assert np.array_equal(whole.labels, trace.labels)


def test_line_numbers_go_on_from_block_to_block(file, monkeypatch):
    monkeypatch.setattr(files, "BLOCK", 64)
    monkeypatch.setattr(files._blocks, "__defaults__", (64,))
    lines = [str(n) for n in range(500)]
    lines[333] = "oops"
    chunks = traces.open(file("\n".join(lines)))
    with pytest.warns(UserWarning, match="the first is 334"):
        assert labels(chunks.trace()) == [n for n in range(500) if n != 333]


def records(ids, clock=None):
    made = np.zeros(len(ids), dtype=formats.ORACLE_GENERAL)
    made["id"], made["clock"], made["size"], made["next"] = ids, clock or np.arange(len(ids)), 1, -1
    return made.tobytes()


def test_objects_of_64_bits_are_pages_too(file):
    ids = [2**64 - 1, 5, 2**63, 5, 2**64 - 1]
    assert labels(traces.read(file(records(ids)))) == ids
    assert traces.open(file(records(ids))).format == "oracleGeneral"


def test_what_is_written_is_read_by_libcachesim_and_by_us(tmp_path):
    trace = traces.mix(300, 700, 5000, seed=3)
    for name in ("t.oracleGeneral", "t.oracleGeneral.zst", "t.csv", "t.csv.gz", "t.txt", "t.txt.zst"):
        traces.write(trace, tmp_path / name)
        again = traces.read(tmp_path / name)
        assert np.array_equal(again.pages, trace.pages), name
        assert np.array_equal(again.labels, trace.labels), name
    parameters = libcachesim.ReaderInitParam(ignore_obj_size=True)
    for name in ("t.oracleGeneral", "t.oracleGeneral.zst"):
        reader = libcachesim.TraceReader(str(tmp_path / name), libcachesim.TraceType.ORACLE_GENERAL_TRACE, parameters)
        misses = [round(cache(100).process_trace(reader)[0] * len(trace)) for cache in (libcachesim.Belady,)]
        assert misses == [refault.replay(trace, 100, "opt", keep="counts").faults]
    with pytest.raises(BadInput, match="format is 'msr', expected plain, csv or oracleGeneral"):
        traces.write(trace, tmp_path / "t", "msr")
    with pytest.raises(CallFailed, match="No such file"):
        traces.write(trace, tmp_path / "missing" / "t")
    assert not list(tmp_path.glob("*.tmp"))


def test_a_recording_is_a_trace_too(tmp_path):
    recording = recordings.load("sqlite-lookups")
    recordings.write(recording, tmp_path / "r.gz")
    read = traces.read(tmp_path / "r.gz")
    assert np.array_equal(read.pages, recording.accesses().pages)
    assert read.provenance.kind == "recorded"


def test_damaged_files_are_refused_by_name(file, tmp_path, monkeypatch):
    packed, zst = gzip.compress(MSR.encode()), zstandard.compress(MSR.encode())
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(MSR.encode() * 50)
    for content, said in (
        (b"", "it is empty"),
        (packed[:-9], "damaged or cut short"),
        (packed[:20] + b"\xff\xff" + packed[22:], "damaged or cut short"),
        (zst[:-3], "damaged or cut short: the last frame does not end"),
        (unsized[:-3], "damaged or cut short"),
        (zst[:10] + b"\0\0\0" + zst[13:], "damaged or cut short"),
        (records([1, 2, 3])[:-5], "cut short, the last record has 19 of 24 bytes"),
        (b"no trace\nat all\n", "no trace that is known here; say which of plain, csv"),
        (bytes(range(256)) * 4, "no trace that is known here"),
        (b"1\n2\n" + b"1" * 70_000, "a line has more than 65536 bytes"),
        (b"a,b\n", "no column is called page or offset"),
        (b"page\n", "it is empty, expected at least one access"),
    ):
        with pytest.raises(BadInput, match=said):
            read_quietly(file(content))
    with pytest.raises(OSError, match="No such file"):
        traces.read(tmp_path / "missing")
    with pytest.raises(BadInput, match="format is 'vscsi', expected one of plain"):
        traces.open(file("1\n"), "vscsi")
    with pytest.raises(BadInput, match="chunk is 0"):
        traces.open(file("1\n"), chunk=0)
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    with pytest.raises(Unavailable, match=r"need the package zstandard: pip install 'kernelnotes\[zst\]'"):
        traces.read(file(zst))


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_crash_it(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("bytes") / "trace"
    path.write_bytes(content)
    for format in (None, *traces.FORMATS):
        with contextlib.suppress(BadInput):
            assert len(read_quietly(path, format)) > 0


# --- Dense ids over any number of parts. ------------------------------------------------------------------------------

numbers = st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 50), min_size=1, max_size=50)


@settings(deadline=None)
@given(st.lists(numbers, min_size=1, max_size=8), st.booleans())
def test_ids_count_up_in_order_of_appearance(parts, compiled):
    numbering, seen = Numbering("some"), {}
    with pytest.MonkeyPatch.context() as patch:
        if not compiled:
            patch.setattr("kernelnotes.traces.chunks.have_numba", lambda: False)
        for part in parts:
            ids = numbering.number(np.array(part, dtype=np.uint64))
            assert ids.tolist() == [seen.setdefault(label, len(seen)) for label in part]
            assert len(numbering) == len(seen)
    assert [int(label) % 2**64 for label in numbering.labels.tolist()] == list(seen)


def test_many_pages_are_told_apart():
    numbering, rng = Numbering("many"), np.random.default_rng(1)
    for _ in range(5):
        labels = rng.integers(0, 300_000, 100_000) * 4096 * 1024
        ids = numbering.number(labels)
        assert np.array_equal(numbering.labels[ids], labels)
    assert len(np.unique(numbering.labels)) == len(numbering)


def test_parts_are_of_one_kind_and_flat():
    assert list(Chunks([["a", "b"], ["a"]]).trace()) == ["a", "b", "a"]
    for parts, said in (
        ([[1, 2], ["a"]], "strings and integers, expected page labels of one kind"),
        ([[1, 2], [-1]], "expected page numbers >= 0"),
        ([np.ones((2, 2), dtype=int)], "flat sequence"),
        ([], "it is empty"),
    ):
        with pytest.raises(BadInput, match=said):
            Chunks(parts).trace()
    assert repr(Chunks([[1]], "mine")) == "<Chunks of mine (model)>"
