"""What programs printed: texts as they stood on the terminal, and the census of the kernel's headers as a table."""

from __future__ import annotations

import gzip
import json
from importlib import resources
from typing import TYPE_CHECKING, NamedTuple

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

    packed = (resources.files("kernelnotes.recordings") / "uapi-hazards.json.gz").read_bytes()
    stored = json.loads(gzip.decompress(packed))
    origin = Provenance("recorded", stored["kernel"], stored["command"], stored["date"])
    return pd.DataFrame(stored["rows"]), origin
