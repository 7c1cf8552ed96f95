"""Make the recordings of the package anew: `python tools/recordings/record.py [NAME ...]`, as root on Linux.

Each is a shell script of the same name beside this file, whose `make` builds what `run` then reads. The temporary
directory must lie on a disk: a tmpfs has no page cache to evict from.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from kernelnotes import recordings
from kernelnotes.live import refault

MEMORY = {"sqlite-lookups": 8192, "source-tree": 3072}  # pages

if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    for name in sys.argv[1:] or MEMORY:
        with tempfile.TemporaryDirectory() as directory:
            script = shutil.copy(here / f"{name}.sh", directory)
            subprocess.run(["sh", script, "make"], cwd=directory, check=True)
            command = ["sh", f"{name}.sh", "run"]
            recording = refault.record(command, MEMORY[name], directory=directory, cold=[directory])
            recordings.write(recording, here.parents[1] / "kernelnotes" / "recordings" / f"{name}.gz")
            print(name, len(recording), "events,", recording.lost, "lost,", recording.counts())
