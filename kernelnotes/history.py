"""What a story's history is made of: moments, each with its date, its lane, and how one knows.

`refault.history`, `repair.history` and `autofs.history` have one `HISTORY` each; dates are ISO 8601, as exact as the
source has them.

>>> history.Moment("2012-04-28", history.KERNEL, "a pipe can keep packets apart", "Linux 9883035ae7ed").lane
'kernel'
"""

from __future__ import annotations

from typing import NamedTuple

KERNEL, USER = "kernel", "user space"


class Moment(NamedTuple):
    """Something that happened: `lane` is KERNEL or USER.

    `kernel` and `readers` say what is in use from then on, in the story of autofs.
    """

    date: str
    lane: str
    what: str
    source: str
    kernel: str = ""
    readers: tuple[str, ...] = ()
