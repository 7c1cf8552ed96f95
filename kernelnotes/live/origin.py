"""The mark of what happened here and now."""

from __future__ import annotations

import os
import re
from datetime import date

from kernelnotes.provenance import Provenance


def provenance(command: str) -> Provenance:
    """That `command` ran on this kernel today."""
    return Provenance("live", kernel(), command, f"{date.today()}")


def kernel() -> str:
    """The name of the running kernel and its version, `Linux 6.18.44`."""
    return f"{os.uname().sysname} {upstream(os.uname().release)}"


def upstream(release: str) -> str:
    """The version in a release that uname tells, `6.18.44` or `6.18.0-rc3`, without what the kernel's builder appended.

    What that leaves out, a distribution's patch level too, is in the first line of `kernelnotes doctor`.
    """
    found = re.match(r"\d+(\.\d+)*(-rc\d+)?", release)
    return found[0] if found else release
