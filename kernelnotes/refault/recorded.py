"""A recording replayed, beside what the kernel did in that same run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kernelnotes.errors import BadInput
from kernelnotes.provenance import Provenance
from kernelnotes.recordings import ADD, DELETE, DELETE_FOREIGN, FAULT, FLUSH, GET_PAGES
from kernelnotes.refault.kernel import linux
from kernelnotes.refault.replays import replay
from kernelnotes.refault.rules import Rules, check_memory, rule_set
from kernelnotes.traces import Trace

if TYPE_CHECKING:
    from kernelnotes.recordings import Recording


def against(recording: Recording, rules: str | Rules = "linux-6.18", memory: int | None = None) -> pd.DataFrame:
    """What a model says of a recorded program, beside what the kernel did: a row per count, in pages.

    memory : pages for the program's files; by default the most of them that were in memory at a time.  The limit of
        its cgroup will not do, since the program's own memory, which nobody recorded, was in there too
    The rules are told when the kernel brought its statistics up to date, and what others evicted.

    The columns are `kernel`, `model` and `error`, the relative difference (NaN where the kernel did nothing).  Rows:

        brought in          pages that entered memory: for the model, faults
        of them again       pages that had been there before: refaults
        evicted             pages that left, or were removed with their file

    Pages that were in memory before it began, and were never brought in, are left out on both sides.

    The error is what it is.  Largest are the parts that are not modelled: readahead brings pages in that nobody asked
    for yet, and mapped pages are touched without an event, so that the model does not know that they are in use.
    Raises BadInput for a recording without accesses, and what `replay` raises.
    """
    chosen = rule_set(rules)
    trace, before = _accesses(recording)
    evicted = np.isin(recording.kind, (DELETE, DELETE_FOREIGN)).any()
    room = int(recording.resident().max()) if evicted else recording.memory
    if memory is not None:
        room = check_memory(memory)
    options: dict[str, Any] = {}
    if chosen.step is linux:
        options = {"flushes": before[recording.kind == FLUSH].tolist(), "foreign": _foreign(recording, trace, before)}
        if chosen.choices.charged_nodes:
            chosen = chosen.but(chosen.name, charged_nodes=0, shrink_nodes=0)  # what was resident were pages alone
    told = replay(trace, min(max(room, 1), len(trace)), chosen, keep="counts", **options)
    came, again, gone = _movements(recording)
    frame = pd.DataFrame(
        {"kernel": [came, again, gone], "model": [told.faults, told.refaults, told.evictions]},
        index=pd.Index(["brought in", "of them again", "evicted"], name="pages"),
    )
    frame["error"] = (frame["model"] - frame["kernel"]) / frame["kernel"].where(frame["kernel"] > 0)
    frame.attrs = {
        "memory": told.memory,
        "rules": chosen.name,
        "provenance": Provenance("model", over=recording.provenance),
        "accesses": len(trace),
        "lost": recording.lost,
    }
    return frame


def _accesses(recording: Recording) -> tuple[Trace, npt.NDArray[np.int64]]:
    """The accesses to pages that were ever brought in, and how many there were before each event.

    The others were in memory when it began, in somebody else's cgroup, and stayed.
    """
    wanted = (recording.kind == GET_PAGES) | (recording.kind == FAULT)
    lengths = np.where(wanted, recording.last - recording.first + 1, 0)
    pages = recording.page_numbers(repeats=True)
    read = np.repeat(recording.kind[wanted] == GET_PAGES, lengths[wanted])
    kept = np.isin(pages, _pages(recording, recording.kind == ADD))
    kept[1:] &= ~((pages[1:] == pages[:-1]) & read[1:] & read[:-1])  # read several times running: once, as the kernel
    if not kept.any():
        raise BadInput("the recording has no accesses to pages that were brought in, expected some to replay")
    counted = np.concatenate([[0], np.cumsum(kept)])
    before = counted[np.concatenate([[0], np.cumsum(lengths)[:-1]])]
    return Trace.of(pages[kept], name="recording", provenance=recording.provenance), before


def _pages(recording: Recording, events: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """All pages of some events, numbered as in Recording.page_numbers."""
    bases = np.concatenate([[0], np.cumsum([file.pages for file in recording.files], dtype=np.int64)])
    first, lengths = recording.first[events], (recording.last - recording.first + 1)[events]
    starts = bases[recording.file[events]] + first - np.concatenate([[0], np.cumsum(lengths)])[:-1]
    return np.repeat(starts, lengths) + np.arange(lengths.sum())


def _foreign(recording: Recording, trace: Trace, before: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    events = recording.kind == DELETE_FOREIGN
    when = np.repeat(before[events], (recording.last - recording.first + 1)[events])
    pages = _pages(recording, events)
    known = np.isin(pages, trace.labels)
    return list(zip(when[known].tolist(), pages[known].tolist(), strict=True))


def _movements(recording: Recording) -> tuple[int, int, int]:
    came = _pages(recording, recording.kind == ADD)
    gone = _pages(recording, np.isin(recording.kind, (DELETE, DELETE_FOREIGN)))
    return len(came), len(came) - len(np.unique(came)), len(gone)
