"""What a real kernel did: page-cache recordings, and the files they are kept in.

A recording holds what the kernel's filemap tracepoints reported while one program ran in a memory-limited cgroup:

    get_pages       read() took these pages from the page cache, hits included
    fault           a page of a mapped file was touched and its page table entry was missing
    map_pages       "fault-around": pages near a touched one were mapped along with it
    add, delete     pages entered the page cache, left it
    delete_foreign  pages left it at the hands of somebody else: kswapd, DAMON, another program
    flush           the kernel folded its memory statistics, which its reclaim decisions are made from

A file is gzip text that any language can read.  The first line is a JSON object, the header: who recorded what, the
files (name, size in pages), the number of events.  Every further line is one event, a letter and numbers:

    r 3 120 127     get_pages, file 3 of the header's list (from 0), pages 120 to 127 of it
    f 3 120         fault, page 120;   likewise m map_pages, a add, d delete, x delete_foreign
    s               flush

>>> recordings.names()
('source-tree', 'sqlite-lookups')
>>> trace = recordings.load("source-tree").accesses("source-tree")
>>> len(trace), trace.unique
(83244, 7207)

Source: include/trace/events/filemap.h, mm/filemap.c.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import zlib
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kernelnotes.errors import BadInput
from kernelnotes.provenance import Provenance
from kernelnotes.recordings.measurements import measured
from kernelnotes.recordings.stored import census, outcomes, packets, transcript

if TYPE_CHECKING:
    from kernelnotes.traces import Trace

__all__ = [
    "File",
    "Recording",
    "census",
    "from_events",
    "load",
    "measured",
    "names",
    "outcomes",
    "packets",
    "read",
    "transcript",
    "write",
]

FORMAT, VERSION = "kernelnotes-recording", 1

KINDS = ("get_pages", "fault", "map_pages", "add", "delete", "delete_foreign", "flush")
GET_PAGES, FAULT, MAP_PAGES, ADD, DELETE, DELETE_FOREIGN, FLUSH = range(7)
_LETTERS = "rfmadxs"  # one per kind, in the files
_KIND_OF = np.zeros(256, np.uint8)
_KIND_OF[[ord(letter) for letter in _LETTERS]] = range(len(KINDS))

# What a file may ask for, checked before anything is allocated for it.
MAX_EVENTS = 20_000_000
MAX_PAGES_NAMED = 200_000_000  # by all events of one recording together: the length of an expanded trace
MAX_FILES = 200_000
MAX_FILE_PAGES = 2**40
_MAX_HEADER = 32 * 2**20  # bytes
_MAX_LINE = 64  # bytes
_LINE = re.compile(rb"(?:([rfmadx]) (\d{1,9}) (\d{1,13})(?: (\d{1,13}))?|s)\n")


class File(NamedTuple):
    """A file that the recorded program touched: its name as far as it could be found, its size in pages."""

    name: str
    pages: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recording:
    """What the page cache did for one program, event by event, in the order in which it happened.

    `memory` is the limit of the program's cgroup in pages of `page_size` bytes: it holds the program's own memory and
    the kernel's bookkeeping as well as the page cache.  The events are columns of equal length: `kind` (uint8, an index
    into KINDS), `file` (int32, an index into `files`; -1 for a flush), `first` and `last` (int64, pages of that file,
    last included).  `lost` counts the events that the kernel's buffer had no room for.  `counters` are the cgroup's own
    counts at the end, as memory.stat names them.

    Raises BadInput for columns that contradict each other.
    """

    provenance: Provenance
    memory: int
    page_size: int
    files: tuple[File, ...]
    kind: NDArray[np.uint8]
    file: NDArray[np.int32]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    lost: int = 0
    counters: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, dtype in (("kind", np.uint8), ("file", np.int32), ("first", np.int64), ("last", np.int64)):
            given = np.asarray(getattr(self, name))
            column = given.astype(dtype)
            if not np.array_equal(column, given):
                raise BadInput(f"recording: column {name} has numbers that {dtype.__name__} cannot hold")
            column.setflags(write=False)
            object.__setattr__(self, name, column)
        if {c.shape for c in (self.kind, self.file, self.first, self.last)} != {(len(self.kind),)}:
            raise BadInput("recording: kind, file, first and last must be columns of equal length")
        if wrong := _misfit(self.files, self.kind, self.file, self.first, self.last):
            raise BadInput(f"recording: event {wrong[0]}: {wrong[1]}")

    def __len__(self) -> int:
        """Number of events."""
        return len(self.kind)

    def counts(self) -> dict[str, int]:
        """Pages per kind of event (for flush: events), e.g. `{"get_pages": 51200, "add": 4100, ...}`."""
        pages = np.bincount(self.kind, weights=self.last - self.first + 1, minlength=len(KINDS))
        return {name: int(n) for name, n in zip(KINDS, pages, strict=True)}

    def page_numbers(self, *, repeats: bool = False, fault_around: bool = False) -> NDArray[np.int64]:
        """The pages that the program accessed, in order, hits included: int64, one number per access.

        Pages of different files have different numbers; `page_of` turns one back into a file and its page.  An access
        is a page taken by read() (get_pages) or a page fault on a mapped file (fault).  Further touches of a page that
        is mapped already raise no event: nobody but the processor knows of them.

        With `repeats`, a page read several times running counts every time.  Without, once, as the kernel counts a file
        that is read in small pieces (mm/filemap.c, filemap_read(): pos_same_folio()).

        With `fault_around`, each map_pages event counts as an access to all the pages that it mapped.  That is off
        because the kernel maps up to 16 pages around the one that was touched, does not say which one that was, and
        the program may never touch the others.  So the trace lacks first touches of mapped pages that were resident:
        for programs that read their data through mmap(), use it with caution either way.
        """
        wanted = (self.kind == GET_PAGES) | (self.kind == FAULT) | (fault_around & (self.kind == MAP_PAGES))
        start = self._bases()[self.file[wanted]] + self.first[wanted]
        pages = _expand(start, (self.last - self.first)[wanted] + 1)
        if repeats or not len(pages):
            return pages
        read = np.repeat(self.kind[wanted] == GET_PAGES, (self.last - self.first)[wanted] + 1)
        again = np.zeros(len(pages), bool)
        again[1:] = (pages[1:] == pages[:-1]) & read[1:] & read[:-1]
        return pages[~again]

    def accesses(self, name: str = "recording", *, repeats: bool = False, fault_around: bool = False) -> Trace:
        """`page_numbers` as a Trace, for `refault.replay` and the rest; its labels are what `page_of` takes."""
        from kernelnotes.traces import Trace  # pandas: only for those who replay

        pages = self.page_numbers(repeats=repeats, fault_around=fault_around)
        return Trace.of(pages, name=name, provenance=self.provenance)

    def page_of(self, number: int) -> tuple[str, int]:
        """File name and page within the file (from 0) of one of `page_numbers`."""
        bases = self._bases()
        if not 0 <= number < bases[-1]:
            raise BadInput(f"page number {number}: this recording has pages 0 to {bases[-1] - 1}")
        file = int(np.searchsorted(bases, number, side="right")) - 1
        return self.files[file].name, int(number - bases[file])

    def resident(self) -> NDArray[np.int64]:
        """Pages of its files in the page cache after each event that the recording saw enter it."""
        sign = np.array([0, 0, 0, 1, -1, -1, 0])[self.kind]
        return np.cumsum(sign * (self.last - self.first + 1))

    def _bases(self) -> NDArray[np.int64]:
        return np.concatenate([[0], np.cumsum([f.pages for f in self.files], dtype=np.int64)])


def from_events(events: ArrayLike, **others: Any) -> Recording:
    """A Recording from rows (kind, file, first, last), e.g. `from_events([(GET_PAGES, 0, 0, 7)], files=..., ...)`."""
    rows = np.asarray(events, dtype=np.int64).reshape(-1, 4)
    columns: dict[str, Any] = dict(zip(("kind", "file", "first", "last"), rows.T, strict=True))
    return Recording(**columns, **others)


def names() -> tuple[str, ...]:
    """Names of the recordings that come with the package."""
    files = (file.name for file in resources.files(__name__).iterdir())
    return tuple(sorted(f.removesuffix(".gz") for f in files if f.endswith(".gz") and f.count(".") == 1))


def load(name: str) -> Recording:
    """A recording that comes with the package.  Raises BadInput for an unknown name, with the known ones."""
    if name not in names():
        hint = "; a file is read by recordings.read" if "/" in name or "." in name else ""
        raise BadInput(f"recording {name!r} is unknown, known are: {', '.join(names())}{hint}")
    with resources.as_file(resources.files(__name__) / f"{name}.gz") as path:
        return read(path)


def write(recording: Recording, path: str | os.PathLike[str]) -> None:
    """Keep `recording` in a file; the file appears complete or not at all."""
    body = _body(recording)
    p = recording.provenance
    header: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "kernel": p.kernel,
        "command": p.command,
        "date": p.date,
        "memory_pages": recording.memory,
        "page_size": recording.page_size,
        "files": [list(f) for f in recording.files],
        "events": len(recording),
        "lost": recording.lost,
        "counters": dict(recording.counters),
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    _check(dict(header), lambda what: BadInput(f"{os.fspath(path)}: cannot be written: {what}"))
    temporary = Path(f"{os.fspath(path)}.{os.getpid()}.tmp")
    try:
        with open(temporary, "xb") as out:
            out.write(gzip.compress(json.dumps(header).encode() + b"\n" + body, mtime=0))
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read(path: str | os.PathLike[str]) -> Recording:
    """The recording in a file.

    Raises BadInput, naming file and line, for a file that is not a recording, damaged, cut short, or of another
    version; OSError where it cannot be opened.
    """
    with _Lines(path) as lines:
        header = _header(lines)
        kind, rows = _events(lines, header)
    return Recording(
        provenance=Provenance("recorded", header["kernel"], header["command"], header["date"]),
        memory=header["memory_pages"],
        page_size=header["page_size"],
        files=header["files"],
        kind=kind,
        file=rows[:, 0].astype(np.int32),
        first=rows[:, 1],
        last=rows[:, 2],
        lost=header["lost"],
        counters=header["counters"],
    )


class _Lines:
    # The lines of a gzip file, none longer than asked for: a small file can unpack to a huge one.
    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path, self.number = os.fspath(path), 0
        self._text = gzip.open(path)  # noqa: SIM115  (closed by __exit__)

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self._text.close()

    def next(self, limit: int) -> bytes:
        """The next line with its end, or the first `limit` bytes of it; b"" after the last one."""
        try:
            line = self._text.readline(limit)
        except EOFError:
            raise self.bad("the file is cut short here, expected the end of the gzip data", after=True) from None
        except (zlib.error, gzip.BadGzipFile) as e:
            raise self.bad(f"the file is damaged here or not gzip ({e})", after=True) from None
        self.number += 1
        return line

    def bad(self, what: str, after: bool = False) -> BadInput:
        return BadInput(f"{self.path}: {'after ' if after else ''}line {self.number}: {what}")


def _header(lines: _Lines) -> dict[str, Any]:
    text = lines.next(_MAX_HEADER)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise lines.bad(f'no recording: expected {{"format": "{FORMAT}", ...}}, found {text[:40]!r}')
    if header.get("version") != VERSION:
        raise lines.bad(f"version {header.get('version')!r}, this release reads version {VERSION}")
    return _check(header, lines.bad)


def _check(header: dict[str, Any], bad: Callable[[str], BadInput]) -> dict[str, Any]:
    # The header with its files as File; whatever it says is within bounds and of the right type.
    def number(what: str, value: object, least: int, most: int) -> int:
        if type(value) is not int or not least <= value <= most:
            raise bad(f"{what} is {str(value)[:40]}, expected a whole number from {least} to {most}")
        return value

    def string(what: str, value: object) -> str:
        if type(value) is not str or not 0 < len(value) <= 4096 or not value.isprintable():
            raise bad(f"{what} is {str(value)[:40]!r}, expected 1 to 4096 printable characters")
        return value

    for name in ("kernel", "command", "date", "sha256"):
        string(name, header.get(name))
    number("memory_pages", header.get("memory_pages"), 1, MAX_FILE_PAGES)
    number("page_size", header.get("page_size"), 512, 2**20)
    number("events", header.get("events"), 0, MAX_EVENTS)
    number("lost", header.get("lost"), 0, 2**63)
    files, counters = header.get("files"), header.get("counters")
    if type(files) is not list or len(files) > MAX_FILES or any(type(f) is not list or len(f) != 2 for f in files):
        raise bad(f"files: expected a list of at most {MAX_FILES} pairs [name, pages]")
    if type(counters) is not dict:
        raise bad("counters: expected an object of numbers")
    for name, value in counters.items():
        number(f"counter {string('a counter name', name)[:40]}", value, 0, 2**64)
    header["files"] = tuple(
        File(string(f"files: name {i}", name), number(f"files: pages of {str(name)[:40]!r}", pages, 0, MAX_FILE_PAGES))
        for i, (name, pages) in enumerate(files)
    )
    return header


def _events(lines: _Lines, header: dict[str, Any]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    # Columns grow with what is really there, not with what the header promises.
    letters, numbers, digest = bytearray(), array("q"), hashlib.sha256()
    for i in range(header["events"]):
        line = lines.next(_MAX_LINE)
        event = _LINE.fullmatch(line)
        if not event:
            found = repr(line.decode("ascii", "replace")) if line else "the end of the file"
            raise lines.bad(f"found {found}, expected event {i + 1} of {header['events']} such as 'r 3 120 127'")
        letter, file, first, last = event.groups()
        letters += letter or b"s"
        numbers.extend((int(file), int(first), int(last or first)) if letter else (-1, 0, 0))
        digest.update(line)
    if extra := lines.next(_MAX_LINE):
        raise lines.bad(f"found {extra.decode('ascii', 'replace')!r} after the {header['events']} events of the header")
    if digest.hexdigest() != header["sha256"]:
        raise BadInput(f"{lines.path}: the events do not have the sha256 that line 1 gives: one of them was changed")
    kind = _KIND_OF[np.frombuffer(letters, np.uint8)]
    rows = np.frombuffer(numbers, np.int64).reshape(-1, 3)
    if wrong := _misfit(header["files"], kind, rows[:, 0], rows[:, 1], rows[:, 2]):
        raise BadInput(f"{lines.path}: line {wrong[0] + 2}: {wrong[1]}")
    return kind, rows


def _body(recording: Recording) -> bytes:
    lines = []
    for kind, file, first, last in zip(
        recording.kind.tolist(), recording.file.tolist(), recording.first.tolist(), recording.last.tolist(), strict=True
    ):
        if kind == FLUSH:
            lines.append("s\n")
        else:
            lines.append(
                f"{_LETTERS[kind]} {file} {first}\n" if first == last else f"{_LETTERS[kind]} {file} {first} {last}\n"
            )
    return "".join(lines).encode()


def _misfit(
    files: tuple[File, ...], kind: NDArray[Any], file: NDArray[Any], first: NDArray[Any], last: NDArray[Any]
) -> tuple[int, str] | None:
    # The first event (from 0) that cannot be, and why.
    if not len(kind):
        return None
    flush = kind == FLUSH
    sizes = np.array([f.pages for f in files] + [1], np.int64)  # the last one stands for a flush, file -1
    known = (kind < len(KINDS)) & np.where(flush, file == -1, (file >= 0) & (file < len(files)))
    inside = (first >= 0) & (first <= last) & (last < sizes[np.where(known, file, -1)])
    for good, what in (
        (known, f"names a file outside the list of {len(files)}"),
        (inside, "names pages that its file does not have"),
        (
            np.cumsum(np.minimum(last - first + 1, MAX_PAGES_NAMED + 1)) <= MAX_PAGES_NAMED,
            f"more than {MAX_PAGES_NAMED} pages",
        ),
    ):
        if not good.all():
            i = int(np.argmin(good))
            return i, f"{what} (file {file[i]}, pages {first[i]} to {last[i]})"
    return None


def _expand(start: NDArray[np.int64], length: NDArray[np.int64]) -> NDArray[np.int64]:
    # [5, 9], [3, 2] -> [5, 6, 7, 9, 10]
    before = np.cumsum(length) - length
    pages: NDArray[np.int64] = np.arange(length.sum(), dtype=np.int64) + np.repeat(start - before, length)
    return pages
