"""Commands as somebody who may read what the tests may read, and nothing else: no capability, uid 65534."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
# A user namespace takes root's capabilities, and leaves it the files, which uid 65534 of the machine may not reach.
ORDINARY_USER = ["unshare", "--user", "--map-user=65534", "--map-group=65534", "--"]


def as_ordinary_user(*command, timeout_s=120):
    """The command, finished; an ordinary user runs it as it is."""
    clean = {key: value for key, value in os.environ.items() if key != "CI" and not key.startswith("PYTEST")}
    environment = clean | {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [clean.get("PYTHONPATH")])])}
    prefix = ORDINARY_USER if os.geteuid() == 0 else []
    return subprocess.run(
        [*prefix, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
    )
