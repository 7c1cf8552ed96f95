"""Record the scenes of connection repair anew: `python tools/recordings/repair_scenes.py`, on Linux, as root or not.

What `kernelnotes.live.repair_scenes` plays is kept as it is; `kernelnotes.repair.scenes` reads it.
"""

import gzip
import json
from pathlib import Path

from kernelnotes.live import repair_scenes

TARGET = Path(__file__).resolve().parents[2] / "kernelnotes" / "recordings" / "repair-scenes.json.gz"

if __name__ == "__main__":
    origin = repair_scenes.provenance("python tools/recordings/repair_scenes.py")
    # The release without what its builder appended.
    told = {"kernel": origin.kernel.partition("-")[0], "command": origin.command, "date": origin.date}
    told |= {name: repair_scenes.played(name) for name in repair_scenes.SCENES}
    packed = gzip.compress(json.dumps(told).encode(), mtime=0)
    TARGET.write_bytes(packed)
    print(TARGET.name, len(packed), "bytes")
