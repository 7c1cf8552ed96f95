"""Whole trees of headers, such as the kernel's user-space API: which of their records two ABIs place differently.

    found = headers.examine(headers.below(["/usr/include/linux"]), "i386", "x86-64", include=["/usr/include"])
    found.hazards, found.refused

Each header is a translation unit of its own, read once for each ABI as that ABI's compiler would see it, and
`cdecl.Known` sees to it that what they have in common is read once in all.  A header that does not stand alone is read
again behind those that programs include before it (`BEFORE`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import islice
from pathlib import Path

from kernelnotes.abi import Abi, find
from kernelnotes.cdecl import Ioctl, Known, Preprocess, Preprocessed, Reader, Records, predefined
from kernelnotes.cdecl.source import MOST_BYTES
from kernelnotes.errors import BadInput
from kernelnotes.layout.hazards import Hazard, Pair, both_have, compared, pairs

BEFORE = "".join(
    f"#include <{name}.h>\n" for name in ("stddef", "stdint", "sys/types", "sys/socket", "netinet/in", "time")
)


@dataclass(slots=True)
class Found:
    """What a tree of headers holds: the hazards its headers declare, and why some were refused, by header.

    `records` are all that both ABIs saw, by the header that brought them first, be they declared there or elsewhere.
    """

    records: dict[str, list[Pair]] = field(default_factory=dict)
    hazards: list[Hazard] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def pairs(self) -> list[Pair]:
        """All records."""
        return [pair for pairs_of_header in self.records.values() for pair in pairs_of_header]


def below(paths: Iterable[str | Path]) -> list[Path]:
    """The files among the paths, and every *.h below the folders among them, in order."""
    return [found for path in map(Path, paths) for found in (sorted(path.rglob("*.h")) if path.is_dir() else [path])]


def examine(
    files: Iterable[Path],
    abi_a: str | Abi,
    abi_b: str | Abi,
    include: Iterable[str] = (),
    cpp: Callable[[Abi], Preprocess] | None = None,
) -> Found:
    """The hazards of what the headers themselves declare, each mend tried in every record that was seen.

    Parameters
    ----------
    files : paths
        The headers; `below` finds them.  Wrap them in `tqdm` to see how far it is.
    abi_a, abi_b : str or Abi
        What to compare.
    include : paths
        Where `#include` looks.
    cpp : callable, optional
        Gives the preprocessor for an ABI; by default pcpp, with the macros of `cdecl.predefined`.

    Raises BadInput for an unknown ABI; a header that cannot be read is in `refused`.
    """
    a, b = find(abi_a), find(abi_b)
    reading = _Reading(a, b, list(map(str, include)), cpp)
    found = Found()
    seen: set[tuple[str, str]] = set()
    ioctls: dict[tuple[str, str], tuple[str, Ioctl, Ioctl]] = {}
    own: set[str] = set()
    for path, records in reading.all(files):
        own.add(os.path.realpath(path))
        if isinstance(records, BadInput):
            found.refused[str(path)] = str(records)
            continue
        new = {(pair.name, _real(pair.here.where)): pair for pair in pairs(*records)}
        found.records[str(path)] = [pair for key, pair in new.items() if key not in seen]
        seen |= new.keys()
        ioctls |= {(one[0], _real(one[1].where)): one for one in both_have(*records)}
    everywhere = sorted(compared(found.pairs, a, b, ioctls.values()), key=_place)
    found.hazards = [hazard for hazard in everywhere if os.path.realpath(_place(hazard)[0]) in own]
    return found


@cache
def _real(where: str) -> str:
    # A place by its one true path: folders can be links, and a header can be named in several ways.
    file, _, line = where.rpartition(":")
    return f"{os.path.realpath(file)}:{line}"


def _place(hazard: Hazard) -> tuple[str, int, str]:
    file, _, line = hazard.header.rpartition(":")
    return file, int(line), hazard.record


Outcome = tuple[Records, Records] | BadInput
AHEAD = 8  # headers whose preprocessors run while the ones before are read


class _Reading:
    # Reads each header for both ABIs.
    def __init__(self, a: Abi, b: Abi, include: list[str], cpp: Callable[[Abi], Preprocess] | None) -> None:
        known = Known()
        self.same = not include and cpp is None  # nothing tells the ABIs apart: one reading is enough
        self.threads = 2 if cpp else 1
        self.readers = [
            Reader({} if cpp or self.same else predefined(abi), include, cpp(abi) if cpp else None, known)
            for abi in ((a,) if self.same else (a, b))
        ]

    def all(self, files: Iterable[Path]) -> Iterator[tuple[Path, Outcome]]:
        """Each header with its records."""
        if self.threads == 1:
            yield from ((path, self._read(path, self._preprocess(path))) for path in files)
            return
        # Only an external preprocessor gains from threads: it is another process.
        with ThreadPoolExecutor(self.threads) as pool:
            left = iter(files)
            ahead = [(path, pool.submit(self._preprocess, path)) for path in islice(left, AHEAD)]
            while ahead:
                path, prepared = ahead.pop(0)
                ahead += [(path, pool.submit(self._preprocess, path)) for path in islice(left, 1)]
                yield path, self._read(path, prepared.result())

    def _preprocess(self, path: Path) -> tuple[str, list[Preprocessed]] | BadInput:
        try:
            source = text(path)
        except BadInput as e:
            return e
        try:
            return source, [reader.preprocess(source, str(path)) for reader in self.readers]
        except BadInput:
            return source, []

    def _read(self, path: Path, prepared: tuple[str, list[Preprocessed]] | BadInput) -> Outcome:
        if isinstance(prepared, BadInput):
            return prepared
        source, sources = prepared
        try:
            if sources:
                return self._both([reader.read(one) for reader, one in zip(self.readers, sources, strict=True)])
        except BadInput:
            pass
        try:
            return self._both([reader.parse(source, str(path)) for reader in self.readers])
        except BadInput as alone:
            if self.same:
                return alone
            try:
                return self._both([replace(reader, before=BEFORE).parse(source, str(path)) for reader in self.readers])
            except BadInput:
                return alone

    def _both(self, records: list[Records]) -> tuple[Records, Records]:
        return records[0], records[-1]


def text(path: Path) -> str:
    """The text of a header.  Raises BadInput where it cannot be read, is no regular file, or is too long."""
    try:
        if path.exists() and not path.is_file():
            raise BadInput(f"{path}: expected a regular file of C text")
        with path.open(errors="surrogateescape") as file:
            found = file.read(MOST_BYTES + 1)
    except OSError as e:
        raise BadInput(f"{path}: {e.strerror}") from e
    if len(found) > MOST_BYTES:
        raise BadInput(f"{path}: expected C text of at most {MOST_BYTES >> 20} MiB")
    return found
