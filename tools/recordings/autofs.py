"""Make the recordings of autofs anew: `python tools/recordings/autofs.py [matrix|scenes ...]` on Linux.

The matrix needs a gcc that makes 32-bit programs, the scenes need root.  Each is what `kernelnotes.live` returns,
cell by cell and step by step; `kernelnotes.recordings.outcomes` and `kernelnotes.autofs.scenes` read them.
"""

import gzip
import json
import sys
from pathlib import Path

from kernelnotes.live import readers, scenes
from kernelnotes.live.origin import provenance
from kernelnotes.provenance import Provenance

FOLDER = Path(__file__).resolve().parents[2] / "kernelnotes" / "recordings"
KEPT = ["kernel", "reader", "mode", "schedule", "writes", "wants", "events"]


def matrix() -> dict:
    frame = readers.outcomes()
    cells = frame[KEPT].to_dict("records")
    for cell in cells:
        cell["events"] = [list(event.values()) for event in cell["events"]]
    return about(frame.attrs["provenance"]) | {"cells": cells}


def scene() -> dict:
    played = {name: scenes.played(name) for name in scenes.SCENES}
    return about(provenance("python tools/recordings/autofs.py scenes")) | played


def about(origin: Provenance) -> dict:
    return {"kernel": origin.kernel, "command": origin.command, "date": origin.date}


RECORDINGS = {"matrix": matrix, "scenes": scene}

if __name__ == "__main__":
    for name in sys.argv[1:] or RECORDINGS:
        packed = gzip.compress(json.dumps(RECORDINGS[name]()).encode(), mtime=0)
        (FOLDER / f"autofs-{name}.json.gz").write_bytes(packed)
        print(f"autofs-{name}", len(packed), "bytes")
