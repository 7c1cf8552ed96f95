r"""The lines and records of other tools' traces, as pages.

    plain           one page number a line
    csv             a header, or the numbers of the columns: see `Columns`
    msr             MSR Cambridge: time in 100 ns,host,disk,Read or Write,byte offset,bytes,response time
    blkparse        blkparse's text: requests that were queued (action Q), in sectors of 512 bytes
    filemap         perf script, trace-cmd or tracefs text of the events mm_filemap_get_pages and mm_filemap_fault;
                    if a file has neither, of mm_filemap_add_to_page_cache, which only misses cause
    oracleGeneral   libCacheSim's binary records: u32 time, u64 object, u32 size, i64 index of the next access;
                    every object is one page, whatever its size

Byte ranges are split into pages of 4 KiB, each an access.  Where there are several files, disks or devices, a page's
label is their number in order of appearance times PLACE, plus the page within.

Source: libCacheSim traceReader/customizedReader/oracle/oracleGeneralBin.h; Narayanan et al., Write off-loading, FAST
2008 (msr-cambridge1); blkparse(1); include/trace/events/filemap.h, v6.18.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kernelnotes.errors import BadInput

PAGE, SECTOR = 4096, 512  # bytes
PLACE = 1 << 40
MOST_IN_A_REQUEST = 1 << 18  # pages, 1 GiB: a line that asks for more is malformed
ORACLE_GENERAL = np.dtype([("clock", "<u4"), ("id", "<u8"), ("size", "<u4"), ("next", "<i8")])

Range = tuple[int, int]  # first and last page, with the place
Parse = Callable[[bytes], "Range | None"]  # ValueError for a malformed line; None for one without an access


class Columns(NamedTuple):
    """Which columns of a CSV file hold what: names in its header, or numbers from 0 if it has none.

    page : the page's number, or its name; or instead
    offset, size : bytes; without a size one page
    file : of several, which one
    """

    page: str | int | None = None
    offset: str | int | None = None
    size: str | int | None = None
    file: str | int | None = None


class Places:
    """Files or devices, numbered in order of appearance."""

    def __init__(self) -> None:
        self.numbers: dict[Any, int] = {}

    def __call__(self, place: Any) -> int:
        """The label of its page 0."""
        return self.numbers.setdefault(place, len(self.numbers)) * PLACE


def whole(text: bytes) -> int:
    """A decimal number from 0 up that fits into 63 bits; ValueError for anything else, 1_000 and +1 too."""
    text = text.strip()
    if not text.isdigit() or len(text) > 19 or (number := int(text)) >= 2**63:
        raise ValueError(f"{text[:40]!r} is no number from 0 up")
    return number


def pages_of(base: int, offset: int, size: int) -> Range:
    """The pages that bytes from `offset` touch; ValueError where that is out of reason."""
    first, last = offset // PAGE, (offset + max(size, 1) - 1) // PAGE
    if last - first >= MOST_IN_A_REQUEST or last >= PLACE:
        raise ValueError(f"{size} bytes from {offset} are too many")
    return base + first, base + last


def plain() -> Parse:
    """A page number a line."""

    def parse(line: bytes) -> Range:
        page = whole(line)
        return page, page

    return parse


def msr() -> Parse:
    """MSR Cambridge CSV."""
    places = Places()

    def parse(line: bytes) -> Range:
        _, host, disk, kind, offset, size, _ = line.split(b",")
        if kind not in (b"Read", b"Write"):
            raise ValueError(f"{kind[:20]!r} is neither Read nor Write")
        return pages_of(places((host, whole(disk))), whole(offset), whole(size))

    return parse


_BLK = re.compile(rb"\s*(\d+,\d+)\s+\d+\s+\d+\s+\d+\.\d+\s+\d+\s+([A-Z]+)\s+(\S+)(?:\s+(\d+) \+ (\d+))?.*")


def blkparse() -> Parse:
    """What blkparse prints; other actions than Q, and its summary, are no accesses."""
    places = Places()

    def parse(line: bytes) -> Range | None:
        found = _BLK.fullmatch(line)
        if found is None:
            if re.match(rb"\s*\d+,\d+\s+\d+\s+\d+\s+\d+\.", line):
                raise ValueError("it begins like an event and goes on otherwise")
            return None
        device, action, kinds, sector, count = found.groups()
        if action != b"Q" or sector is None or int(count) == 0 or b"D" in kinds:
            return None
        return pages_of(places(device), SECTOR * whole(sector), SECTOR * whole(count))

    return parse


_EVENT = re.compile(
    rb".*?[\s-](?P<thread>\d+)\s+(?:\[\d+\]|\(.*?\)).*?:\s+(?:filemap:)?mm_filemap_(?P<event>\w+):\s+(?P<fields>.*)"
)
_FIELDS = re.compile(
    rb"dev[= ](?P<device>\d+:\d+) ino[= ](?P<ino>[0-9a-f]+).*"
    rb" ofs=(?P<first>\d+)(?:-(?P<last>\d+))?(?: order=(?P<order>\d+))?\s*"
)
ACCESSES, MISSES = (b"get_pages", b"fault"), (b"add_to_page_cache",)


def filemap(events: tuple[bytes, ...] = ACCESSES) -> Parse:
    """The page cache's tracepoints.

    A long read() takes its pages in batches, and each event names everything from there to the end of the request: the
    range is told once, at the first.  A fault that had to wait for the disk is run again, and is told once too.
    Source: mm/filemap.c filemap_read(), filemap_fault().
    """
    places = Places()
    before: dict[bytes, tuple[bytes, int, int]] = {}  # per thread: event, last page, first page

    def parse(line: bytes) -> Range | None:
        found = _EVENT.fullmatch(line)
        if found is None:
            if b"mm_filemap_" in line and not line.startswith(b"#"):
                raise ValueError("it names an event of the page cache and is none")
            return None
        event, thread = found["event"], found["thread"]
        if event not in events:
            return None
        fields = _FIELDS.fullmatch(found["fields"])
        if fields is None:
            raise ValueError(f"unknown fields of {event.decode()}")
        base = places((fields["device"], fields["ino"]))
        if fields["last"]:
            first, last = pages_of(base, int(fields["first"]), int(fields["last"]) - int(fields["first"]) + 1)
        else:
            first, last = pages_of(base, int(fields["first"]), PAGE << int(fields["order"] or 0))
        was = before.get(thread)
        before[thread] = event, last, first
        if was and was[:2] == (event, last) and (event == b"fault" or first > was[2]):
            return None
        return first, last

    return parse


def csv(header: list[bytes], columns: Columns) -> Parse:
    """A comma-separated file with these columns; raises BadInput where they are not there."""
    index = {name: _column(header, name, column) for name, column in columns._asdict().items() if column is not None}
    if ("page" in index) == ("offset" in index):
        raise BadInput(
            f"csv: expected a column for the page, or one for the offset in bytes; the header is {_shown(header)}"
        )
    places = Places()

    def parse(line: bytes) -> Range:
        fields = line.split(b",")
        if len(fields) != len(header):
            raise ValueError(f"{len(fields)} fields, expected {len(header)}")
        base = places(fields[index["file"]].strip()) if "file" in index else 0
        if "page" in index:
            page = whole(fields[index["page"]])
            if base and page >= PLACE:
                raise ValueError(f"page {page} is too large beside several files")
            return base + page, base + page
        size = whole(fields[index["size"]]) if "size" in index else PAGE
        return pages_of(base, whole(fields[index["offset"]]), size)

    return parse


PAGE_NAMES = ("page", "page_number", "pageno", "obj_id", "object", "id", "key", "block", "lbn")


def guessed(header: list[bytes]) -> Columns:
    """The columns that names in a header suggest."""
    names = [name.strip().strip(b'"').lower().decode(errors="replace") for name in header]
    if len(names) == 1 and names[0].isdigit():
        return Columns(page=0)
    found = [name for name in PAGE_NAMES if name in names]
    if found:
        return Columns(page=names.index(found[0]), file=names.index("file") if "file" in names else None)
    if "offset" in names:
        size = next((names.index(name) for name in ("size", "length", "bytes") if name in names), None)
        return Columns(offset=names.index("offset"), size=size, file=names.index("file") if "file" in names else None)
    raise BadInput(f"csv: no column is called page or offset, the header is {_shown(header)}; say which in `columns`")


def _column(header: list[bytes], what: str, column: Any) -> int:
    if isinstance(column, int) and not isinstance(column, bool) and 0 <= column < len(header):
        return column
    names = [name.strip().strip(b'"').decode(errors="replace") for name in header]
    if isinstance(column, str) and column in names:
        return names.index(column)
    raise BadInput(f"csv: there is no column {column!r} for the {what}, the header is {_shown(header)}")


def _shown(header: list[bytes]) -> str:
    return b",".join(header)[:200].decode(errors="replace")


def expand(ranges: list[Range]) -> npt.NDArray[np.int64]:
    """Every page of every range."""
    bounds = np.array(ranges, dtype=np.int64).reshape(-1, 2)
    counts = bounds[:, 1] - bounds[:, 0] + 1
    starts = np.repeat(bounds[:, 0] - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
    return starts + np.arange(counts.sum())


LINES: Mapping[str, Callable[[], Parse]] = {"msr": msr, "blkparse": blkparse, "filemap": filemap, "plain": plain}


def recognise(sample: bytes) -> str:
    """The format of a file that begins like this; "" if it is none that is known."""
    if sample.startswith(b'{"format": "kernelnotes-recording"'):
        return "recording"
    if b"\0" in sample:
        return "oracleGeneral" if _like_oracle_general(sample) else ""
    lines = [line for line in sample.split(b"\n")[:200] if line.strip() and not line.startswith(b"#")]
    if lines and lines[0].strip().strip(b'"').lower().decode(errors="replace") in PAGE_NAMES:
        return "csv"  # of one column
    scores = {name: _score(make(), lines) for name, make in LINES.items()}
    scores["filemap"] = max(scores["filemap"], _score(filemap(MISSES), lines))
    best = max(scores, key=lambda name: scores[name])
    if 0 < len(lines) <= 2 * scores[best] or (scores[best] and best in ("blkparse", "filemap")):
        return best
    return "csv" if lines and b"," in lines[0] else ""


def _score(parse: Parse, lines: list[bytes]) -> int:
    good = 0
    for line in lines:
        try:
            good += parse(line.rstrip(b"\r")) is not None
        except ValueError:
            continue
    return good


def _like_oracle_general(sample: bytes) -> bool:
    records = np.frombuffer(sample[: len(sample) // 24 * 24], dtype=ORACLE_GENERAL)
    in_order = np.diff(records["clock"].astype(np.int64)) >= 0
    return len(records) > 0 and bool(in_order.all()) and bool((records["next"] >= -1).all())


def records(data: bytes) -> npt.NDArray[np.uint64]:
    """The objects of the whole oracleGeneral records that `data` begins with."""
    ids: npt.NDArray[np.uint64] = np.frombuffer(data, ORACLE_GENERAL, len(data) // ORACLE_GENERAL.itemsize)["id"].copy()
    return ids
