"""Traces in files: opened in parts, read whole, written for other tools."""

from __future__ import annotations

import builtins
import gzip
import os
import warnings
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from kernelnotes.errors import BadInput, CallFailed, Unavailable
from kernelnotes.provenance import Provenance
from kernelnotes.traces import formats
from kernelnotes.traces.chunks import Chunks
from kernelnotes.traces.trace import Trace, TraceLike, as_trace

FORMATS = ("plain", "csv", "msr", "blkparse", "filemap", "oracleGeneral", "recording")
MOST_IN_A_LINE = 1 << 16  # bytes
TOLD = 10  # malformed lines that are remembered with what is wrong with them
_RECORD = formats.ORACLE_GENERAL.itemsize
BLOCK = _RECORD << 16  # bytes read at a time; whole records, which need no copy then
SAMPLE = 1 << 16  # bytes by which a format is recognised


class FileChunks(Chunks):
    """The parts of a trace in a file; going through them again reads it again.

    path, format : which file, in one of FORMATS
    malformed : lines that said no access though they should, in what was read so far
    first_malformed : number, from 1, and fault of the first TOLD of them
    """

    def __init__(self, path: Path, format: str, columns: formats.Columns, chunk: int) -> None:
        super().__init__(self._read, path.name)
        self.path, self.format, self._columns, self._chunk = path, format, columns, chunk
        self.malformed, self.first_malformed = 0, list[tuple[int, str]]()

    def _read(self) -> Iterator[npt.NDArray[Any]]:
        self.malformed, self.first_malformed = 0, []
        parts = self._records() if self.format == "oracleGeneral" else self._lines()
        waiting: list[npt.NDArray[Any]] = []
        for part in parts:
            waiting.append(part)
            if sum(map(len, waiting)) >= self._chunk:
                yield np.concatenate(waiting) if len(waiting) > 1 else part
                waiting = []
        if waiting:
            yield np.concatenate(waiting)
        if self.malformed:
            line, why = self.first_malformed[0]
            warnings.warn(f"{self.path}: {self.malformed} malformed lines, the first is {line}: {why}", stacklevel=2)

    def _records(self) -> Iterator[npt.NDArray[np.uint64]]:
        left = b""
        for block in _blocks(self.path):
            data = left + block if left else block
            ids = formats.records(data)
            yield ids
            left = data[len(ids) * _RECORD :]
        if left:
            raise BadInput(f"{self.path}: it is cut short, the last record has {len(left)} of {_RECORD} bytes")

    def _lines(self) -> Iterator[npt.NDArray[np.int64]]:
        parse: formats.Parse | None = None
        for first, lines in _lines(self.path):
            if parse is None:
                parse = self._parser(lines)
            if self.format == "plain" and _numbers_only(lines):  # ten times as fast
                yield np.array(lines).astype(np.int64)
                continue
            ranges = []
            for number, line in enumerate(lines, first):
                if not line.strip() or line.startswith(b"#"):
                    continue
                try:
                    pages = parse(line)
                except ValueError as e:
                    self._note(number, str(e))
                    continue
                if pages:
                    ranges.append(pages)
            if ranges:
                yield formats.expand(ranges)

    def _note(self, number: int, why: str) -> None:
        self.malformed += 1
        if len(self.first_malformed) < TOLD:
            self.first_malformed.append((number, why))

    def _parser(self, lines: list[bytes]) -> formats.Parse:
        # Also takes the header off the first lines of a CSV file.
        if self.format == "filemap":
            return formats.filemap(self._events())
        if self.format != "csv":
            return formats.LINES[self.format]()
        header = next((line for line in lines if line.strip() and not line.startswith(b"#")), b"").split(b",")
        columns = self._columns if any(c is not None for c in self._columns) else formats.guessed(header)
        parse = formats.csv(header, columns)
        if any(isinstance(column, str) for column in columns) or not any(f.strip().isdigit() for f in header):
            at = next(i for i, line in enumerate(lines) if line.split(b",") == header)
            lines[at] = b""
        return parse

    def _events(self) -> tuple[bytes, ...]:
        for _, lines in _lines(self.path):
            for line in lines:
                if any(b"mm_filemap_" + event + b":" in line for event in formats.ACCESSES):
                    return formats.ACCESSES
        return formats.MISSES


def _numbers_only(lines: list[bytes]) -> bool:
    lengths = set(map(len, lines))
    return b"".join(lines).isdigit() and 0 not in lengths and max(lengths) < 19


def open(
    path: str | os.PathLike[str],
    format: str | None = None,
    columns: Mapping[str, str | int] | None = None,
    chunk: int = 1_000_000,
) -> Chunks:
    """The trace in a file, in parts of `chunk` accesses or a little more.

    format : one of FORMATS, see `formats`; by default it is recognised by what the file begins with.  gzip and zstd are
        unpacked on the way
    columns : of a CSV file, which one holds what, e.g. {"offset": "lba", "size": 3}; keys page, offset, size, file
    Malformed lines are left out, counted, and told in a warning at the end with the first one's number.
    Raises BadInput for a file that is none of these, and, when it comes to that, for one that is cut short or damaged;
    Unavailable for zstd without the package zstandard; OSError where it cannot be opened.
    """
    if format is not None and format not in FORMATS:
        raise BadInput(f"format is {format!r}, expected one of {', '.join(FORMATS)}")
    if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
        raise BadInput(f"chunk is {chunk!r}, expected a number of accesses from 1 up")
    path = Path(path)
    sample = _beginning(path)
    if not sample:
        raise BadInput(f"{path}: it is empty, expected a trace")
    found = format or formats.recognise(sample)
    if not found:
        raise BadInput(f"{path}: no trace that is known here; say which of {', '.join(FORMATS)} it is")
    if found == "recording":
        return _recording(path)
    return FileChunks(path, found, _columns(columns), chunk)


def read(
    path: str | os.PathLike[str], format: str | None = None, columns: Mapping[str, str | int] | None = None
) -> Trace:
    """The whole trace in a file, see `open`; raises BadInput if no line of it is an access."""
    return open(path, format, columns).trace()


def write(trace: TraceLike, path: str | os.PathLike[str], format: str | None = None) -> None:
    """Write a trace as "plain", "csv" or "oracleGeneral"; by default what the file's name ends with: .csv, .txt, else
    the last.  With .gz or .zst after that it is packed.

    The file appears complete or not at all.  Labels that are no numbers become numbers in order of appearance.
    """
    trace, path = as_trace(trace), Path(path)
    packed = path.suffix if path.suffix in (".gz", ".zst") else ""
    by_name = {".csv": "csv", ".txt": "plain"}.get(Path(path.name.removesuffix(packed)).suffix, "oracleGeneral")
    chosen = format or by_name
    labels = trace.labels if trace.labels.dtype.kind in "iu" else np.arange(trace.unique)
    pages = labels[trace.pages]
    if chosen == "oracleGeneral":
        body = _oracle_general(trace, pages)
    elif chosen in ("plain", "csv"):
        body = b"page\n" * (chosen == "csv") + "\n".join(map(str, pages.tolist())).encode() + b"\n"
    else:
        raise BadInput(f"format is {chosen!r}, expected plain, csv or oracleGeneral")
    temporary = Path(f"{path}.{os.getpid()}.tmp")
    try:
        with builtins.open(temporary, "xb") as out:
            out.write(_packed(body, packed))
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, path)
    except OSError as e:
        raise CallFailed(e.errno or 0, f"traces.write: {path}: {e.strerror}") from e
    finally:
        temporary.unlink(missing_ok=True)


def _oracle_general(trace: Trace, pages: npt.NDArray[Any]) -> bytes:
    order = np.argsort(trace.pages, kind="stable")
    later = np.full(len(trace), -1, dtype=np.int64)
    same = trace.pages[order[1:]] == trace.pages[order[:-1]]
    later[order[:-1][same]] = order[1:][same]
    records = np.zeros(len(trace), dtype=formats.ORACLE_GENERAL)
    records["clock"], records["id"] = np.minimum(np.arange(len(trace)), 2**32 - 1), pages
    records["size"], records["next"] = formats.PAGE, later
    return records.tobytes()


def _packed(body: bytes, suffix: str) -> bytes:
    if suffix == ".gz":
        return gzip.compress(body, mtime=0)
    packed: bytes = _zstandard().ZstdCompressor().compress(body) if suffix else body
    return packed


def _columns(given: Mapping[str, str | int] | None) -> formats.Columns:
    unknown = set(given or {}) - set(formats.Columns._fields)
    if unknown:
        raise BadInput(f"columns: {min(unknown)!r}, expected {', '.join(formats.Columns._fields)}")
    return formats.Columns(**(given or {}))


def _recording(path: Path) -> Chunks:
    from kernelnotes import recordings

    trace = recordings.read(path).accesses(path.name)
    origin: Provenance = trace.provenance
    return Chunks([trace.labels[trace.pages]], path.name, origin)


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as e:
        raise Unavailable("zstd files need the package zstandard: pip install 'kernelnotes[zst]'") from e
    return zstandard


def _beginning(path: Path) -> bytes:
    return next(_blocks(path, SAMPLE), b"")


def _blocks(path: Path, size: int = BLOCK) -> Iterator[bytes]:
    """What the file holds, unpacked, in blocks of about `size` bytes."""
    with builtins.open(path, "rb") as file:
        magic = file.read(4)
        file.seek(0)
        try:
            if magic[:2] == b"\x1f\x8b":
                with gzip.GzipFile(fileobj=file) as unpacked:
                    yield from iter(lambda: unpacked.read(size), b"")
            elif magic == b"\x28\xb5\x2f\xfd":
                yield from _unpacked_zstd(file, size)
            else:
                yield from iter(lambda: file.read(size), b"")
        except (EOFError, gzip.BadGzipFile, zlib.error) as e:
            raise BadInput(f"{path}: it is damaged or cut short: {e}") from e


def _unpacked_zstd(file: IO[bytes], size: int) -> Iterator[bytes]:
    # Fed by the KiB, which makes 32 MiB at most, so that a small file cannot fill the memory.
    zstandard = _zstandard()
    frame, waiting, length = None, [], 0
    try:
        for packed in iter(lambda: file.read(1024), b""):
            while packed:
                frame = frame or zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
                waiting.append(frame.decompress(packed))
                length += len(waiting[-1])
                packed = frame.unused_data
                if frame.eof:
                    frame = None
            if length >= size:
                yield b"".join(waiting)
                waiting, length = [], 0
    except zstandard.ZstdError as e:
        raise EOFError(str(e)) from e
    if length:
        yield b"".join(waiting)
    if frame is not None:
        raise EOFError("the last frame does not end")


def _lines(path: Path) -> Iterator[tuple[int, list[bytes]]]:
    """Lines a block at a time, with the number of the first."""
    number, left = 1, b""
    for block in _blocks(path):
        lines = (left + block).split(b"\n")
        left = lines.pop()
        if max(map(len, [left, *lines])) > MOST_IN_A_LINE:
            raise BadInput(f"{path}: a line has more than {MOST_IN_A_LINE} bytes, expected a trace")
        if lines:
            yield number, [line.rstrip(b"\r") for line in lines]
        number += len(lines)
    if left:
        yield number, [left]
