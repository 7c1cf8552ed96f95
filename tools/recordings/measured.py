"""Make kernelnotes/recordings/measured.json.gz anew: `python tools/recordings/measured.py`, as root on Linux.

The traces are those of the chapter "Against the running kernel"; the temporary directory must lie on a disk.
"""

import gzip
import json
from datetime import date
from pathlib import Path

from kernelnotes import traces
from kernelnotes.live.origin import kernel
from kernelnotes.live.refault import measure
from kernelnotes.recordings.measurements import as_dict

MEMORY = 4096
TRACES = [
    traces.cyclic(4915, 6),
    traces.zipf(16384, 80_000, seed=1),
    traces.scan_over_hot(3000, 12_288, 60_000, 0.35, seed=1),
    traces.shift(3000, 3000, 6, 10),
    traces.mix(5000, 8192, 50_000, seed=1),
]

if __name__ == "__main__":
    runs = [as_dict(measure(trace, MEMORY, sample=sample)) for trace in TRACES for sample in (512, 0)]
    origin = {"kernel": kernel(), "command": "live.refault.measure(trace, 4096)", "date": f"{date.today()}"}
    path = Path(__file__).resolve().parents[2] / "kernelnotes" / "recordings" / "measured.json.gz"
    path.write_bytes(gzip.compress(json.dumps(origin | {"runs": runs}).encode(), mtime=0))
    for run in runs:
        print(run["trace"], run["sample_period"], run["faults"], run["refaults"])
