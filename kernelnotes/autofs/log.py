"""What an automounter and the kernel said to each other, step by step: the stuff of a sequence diagram."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from kernelnotes.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd

LANES = ("requester", "kernel", "daemon")


class Step(NamedTuple):
    """From which lane to which, and what it means."""

    sender: str
    receiver: str
    meaning: str


STEPS: Mapping[str, Step] = MappingProxyType(
    {
        "serve": Step("daemon", "kernel", "mounts autofs and hands over the pipe"),
        "reconnect": Step("daemon", "kernel", "hands a new pipe to the mount of a daemon that died"),
        "missing": Step("kernel", "daemon", "somebody waits for this name"),
        "mount": Step("daemon", "kernel", "mounts something there"),
        "fail": Step("daemon", "kernel", "there is no such name: who waits gets ENOENT"),
        "expire": Step("kernel", "daemon", "nobody has used it for long: unmount it"),
        "unmount": Step("daemon", "kernel", "unmounts it"),
        "ready": Step("daemon", "kernel", "it is done: who waits goes on"),
        "refused": Step("kernel", "daemon", "an answer was not accepted, or a request not understood"),
        "catatonic": Step("daemon", "kernel", "asks for no more requests: who waits, now or later, gets ENOENT"),
        "end": Step("daemon", "kernel", "unmounts autofs itself"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One step.  `at` is in seconds since the automounter began; `token`, and who asked, are 0 where nobody did.

    `detail` is what was mounted, or why something was not done.
    """

    at: float
    what: str
    name: str = ""
    token: int = 0
    uid: int = 0
    gid: int = 0
    pid: int = 0
    detail: str = ""

    def __str__(self) -> str:
        """One line: `   0.013 s  missing    src  token 3, pid 812, uid 1000, gid 1000`."""
        asked = f"pid {self.pid}, uid {self.uid}, gid {self.gid}" if self.what == "missing" else ""
        told = ", ".join(filter(None, [f"token {self.token}" if self.token else "", asked, self.detail]))
        # A name is bytes: what is no text, or would move the cursor, is escaped.
        shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in f"{self.name:<16}  {told}")
        return f"{self.at:8.3f} s  {self.what:<9}  {shown}".rstrip()


@dataclass(frozen=True, slots=True)
class Log:
    """The events in the order in which the daemon saw or did them, and where they come from."""

    events: tuple[Event, ...]
    provenance: Provenance

    def to_frame(self) -> pd.DataFrame:
        """A row per event: its fields, sender and receiver."""
        import pandas as pd

        columns = ["at", "what", "name", "token", "uid", "gid", "pid", "detail"]
        rows = [[getattr(event, column) for column in columns] for event in self.events]
        lanes = [STEPS[event.what][:2] for event in self.events]
        frame = pd.DataFrame(rows, columns=columns)
        frame["sender"], frame["receiver"] = [a for a, _ in lanes], [b for _, b in lanes]
        return frame

    def __str__(self) -> str:
        """A line per event."""
        return "\n".join(map(str, self.events))
