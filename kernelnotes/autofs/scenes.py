"""Small scenes with pipes and with the running kernel's autofs: recorded ones, and the shape of the live ones.

`live.scenes` plays them; where that is not possible, `recorded_visit` and `recorded_steps` have what it was on another
machine, and `pipe_reads` asks the model of a pipe.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from itertools import groupby
from typing import TYPE_CHECKING, Any, Protocol

from kernelnotes.autofs.log import Event, Log
from kernelnotes.autofs.packets import PACKETS
from kernelnotes.errors import BadInput
from kernelnotes.pipes import Pipe
from kernelnotes.provenance import MODEL, Provenance

if TYPE_CHECKING:
    import pandas as pd

_TYPES = {kind.number: kind.name for kind in PACKETS.values()}


def log(events: Iterable[Mapping[str, Any]], provenance: Provenance) -> Log:
    """The log of an automounter that JSON brought."""
    return Log(tuple(Event(**event) for event in events), provenance)


def steps(rows: Iterable[Mapping[str, Any]], provenance: Provenance) -> pd.DataFrame:
    """A row per read of 300 bytes: pipe, protocol, type and token as an i386 program finds them.

    `answer` is what the kernel said to FAIL of that token, `process` what became of the one whose packet it should
    have been.  `attrs` hold the `provenance`.  Raises BadInput where a read gave less.
    """
    import pandas as pd

    rows = list(rows)
    if any(row["bytes"] != 300 for row in rows):
        raise BadInput(f"reads of {[row['bytes'] for row in rows]} bytes, expected 300 each")
    made = [
        {
            "pipe": "with the flag" if row["packets"] else "flag cleared",
            "protocol": row["proto"],
            "type": f"{row['type']}, {_TYPES.get(row['type'], 'none')}",
            "token": str(row["token"]),
            "answer": row["answer"],
            "process": row["process"],
        }
        for row in rows
    ]
    frame = pd.DataFrame(made)
    frame.attrs = {"provenance": provenance}
    return frame


def _stored() -> tuple[dict[str, Any], Provenance]:
    packed = (resources.files("kernelnotes.recordings") / "autofs-scenes.json.gz").read_bytes()
    stored: dict[str, Any] = json.loads(gzip.decompress(packed))
    return stored, Provenance("recorded", stored["kernel"], stored["command"], stored["date"])


def recorded_visit() -> Log:
    """What `live.scenes.visit` was on a Linux 6.18."""
    stored, origin = _stored()
    return log(stored["visit"], origin)


def recorded_steps() -> pd.DataFrame:
    """What `live.scenes.lose_step` was on a Linux 6.18."""
    stored, origin = _stored()
    return steps(stored["lose_step"], origin)


# What is written, packet by packet, and then read, in bytes.
Experiments = Mapping[str, tuple[Sequence[int], Sequence[int]]]


class AnyPipe(Protocol):
    """A pipe that does not wait, a model or a real one."""

    def write(self, data: bytes) -> int:
        """As os.write."""

    def read(self, size: int) -> bytes:
        """As os.read.  Raises BlockingIOError where there is nothing yet."""


def pipe_reads(
    experiments: Experiments, make: Callable[[bool], AnyPipe] = Pipe, provenance: Provenance = MODEL
) -> pd.DataFrame:
    """What each read gives, from a plain pipe and from a packet pipe: `4 A + 296 B` are bytes of two writes.

    `make(packets)` makes the pipes.
    """
    import pandas as pd

    rows = {
        what: {kind: _reads(make(packets), *sizes) for kind, packets in (("plain", False), ("packets", True))}
        for what, sizes in experiments.items()
    }
    frame = pd.DataFrame.from_dict(rows, "index").rename_axis("bytes written, bytes asked for")
    frame.attrs = {"provenance": provenance}
    return frame


def _reads(pipe: AnyPipe, writes: Sequence[int], asked: Sequence[int]) -> str:
    for k, size in enumerate(writes):
        pipe.write(bytes([65 + k]) * size)
    told = []
    for size in asked:
        try:
            got = pipe.read(size)
        except BlockingIOError:
            told.append("waits")
        else:
            told.append(" + ".join(f"{len(list(run))}\u00a0{chr(letter)}" for letter, run in groupby(got)))
    return "; ".join(told)
