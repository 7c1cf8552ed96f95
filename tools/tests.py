"""Every test: first those that may run beside each other, one file per processor, then those of the live kernel alone.

tools/tests.py              all, in two runs of pytest
tools/tests.py ARGUMENTS    one run of pytest with these arguments
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIVE = "tests/live"  # they measure, record and count what the whole machine does
RUNS = (["-n", "auto", "--dist", "loadfile", "tests", f"--ignore={LIVE}"], [LIVE])


def main(arguments: list[str]) -> int:
    """The first status that is not 0."""
    runs = [arguments] if arguments else RUNS
    statuses = [subprocess.run([sys.executable, "-m", "pytest", *run], cwd=ROOT).returncode for run in runs]
    return next(filter(None, statuses), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
