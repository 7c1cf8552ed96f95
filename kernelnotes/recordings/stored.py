"""What programs printed, as it stood on the terminal; the census of the kernel's headers; autofs: packets, matrix."""

from __future__ import annotations

import gzip
import json
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

from kernelnotes.errors import BadInput
from kernelnotes.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd


class Transcript(NamedTuple):
    """The text of a terminal, and what printed it where and when."""

    text: str
    provenance: Provenance


def transcripts() -> tuple[str, ...]:
    """Names of the transcripts that come with the package."""
    here = resources.files("kernelnotes.recordings").iterdir()
    return tuple(sorted(file.name.removesuffix(".txt") for file in here if file.name.endswith(".txt")))


def transcript(name: str) -> Transcript:
    """A transcript that comes with the package; its file begins with kernel, command and date.

    Raises BadInput for an unknown name, with the known ones.
    """
    if name not in transcripts():
        raise BadInput(f"transcript {name!r} is unknown, known are: {', '.join(transcripts())}")
    head, _, text = (resources.files("kernelnotes.recordings") / f"{name}.txt").read_text().partition("\n\n")
    about = dict(line.split(": ", 1) for line in head.splitlines())
    return Transcript(text.rstrip(), Provenance("recorded", about["Kernel"], about["Command"], about["Date"]))


def census() -> tuple[pd.DataFrame, Provenance]:
    """The records of the kernel's headers that i386 and x86-64 place differently, and how they were found.

    A row per record: record, header (file:line below the include folder), kind, sizes (bytes on i386 and on x86-64),
    members (those that moved, or whose type has another size), mend ("" where none was found).
    """
    import pandas as pd

    stored = _stored("uapi-hazards")
    return pd.DataFrame(stored["rows"]), _origin(stored)


class RecordedPacket(NamedTuple):
    """A packet of autofs as a daemon read it.

    `abi` is that of the daemon, `data` the bytes; `truth` are the members that were found out in another way (fstat of
    the mount, the asking process's own uid and pid; the name in hexadecimal), `note` how it came about.
    """

    id: str
    abi: str
    type: str
    token: int
    data: bytes
    truth: dict[str, int | str]
    note: str


class Packets(NamedTuple):
    """Packets from a live kernel, and `stream`: three x86-64 packets that lay in a pipe without O_DIRECT, in one read.

    `stream_names` and `stream_tokens` are what the three were about.
    """

    packets: tuple[RecordedPacket, ...]
    stream: bytes
    stream_names: tuple[str, ...]
    stream_tokens: tuple[int, ...]
    provenance: Provenance


def packets() -> Packets:
    """The packets of autofs that come with the package."""
    stored = _stored("autofs-packets")
    found = tuple(RecordedPacket(**{**row, "data": bytes.fromhex(row["data"])}) for row in stored["packets"])
    stream = stored["stream"]
    told = (bytes.fromhex(stream["data"]), tuple(stream["names"]), tuple(stream["tokens"]))
    return Packets(found, *told, _origin(stored))


def outcomes() -> pd.DataFrame:
    """The matrix of autofs with real readers: what `live.readers.outcomes` returned."""
    from kernelnotes.autofs.matrix import Event, Outcome, frame

    stored = _stored("autofs-matrix")
    origin = _origin(stored)
    for cell in stored["cells"]:
        cell["events"] = tuple(Event(*event) for event in cell["events"])
    return frame(Outcome(**cell, provenance=origin) for cell in stored["cells"])


def _stored(name: str) -> dict[str, Any]:
    packed = (resources.files("kernelnotes.recordings") / f"{name}.json.gz").read_bytes()
    stored: dict[str, Any] = json.loads(gzip.decompress(packed))
    return stored


def _origin(stored: dict[str, Any]) -> Provenance:
    return Provenance("recorded", stored["kernel"], stored["command"], stored["date"])
