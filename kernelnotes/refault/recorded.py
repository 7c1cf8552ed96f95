"""A recording replayed, beside what the kernel did in that same run."""

from __future__ import annotations

from dataclasses import replace
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
    Rules of Linux are told when the kernel brought its statistics up to date, what others evicted, and, before each
    access, what was brought in: readahead is a mechanism of its own, which follows from how a program reads and not
    from what is in memory.  What they are asked is what stays.  Other rules bring in what is accessed, nothing else.

    The columns are `kernel`, `model` and `error`, the relative difference (NaN where the kernel did nothing).  Rows:

        brought in          pages that entered memory
        of them again       pages that had been there before: refaults
        evicted             pages that left, or were removed with their file

    Pages that were in memory before it began, and were never brought in, are left out on both sides.

    The error is what it is.  Not modelled is that mapped pages are touched without an event: the model does not know
    that they are in use.
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
        options = {
            "flushes": before[recording.kind == FLUSH].tolist(),
            "foreign": _before(recording, trace, before, DELETE_FOREIGN),
            "ahead": _before(recording, trace, before, ADD),
        }
        if chosen.choices.charged_nodes:
            chosen = chosen.but(chosen.name, charged_nodes=0, shrink_nodes=0)  # what was resident were pages alone
    most = len(trace) + len(options.get("ahead", ()))
    told = replay(trace, min(max(room, 1), most), chosen, keep="counts", **options)
    came, again, gone = _movements(recording)
    frame = pd.DataFrame(
        {"kernel": [came, again, gone], "model": [told.faults + told.read_ahead, told.refaults, told.evictions]},
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
    added = np.unique(_pages(recording, recording.kind == ADD))
    trace = Trace.of(pages[kept], name="recording", provenance=recording.provenance)
    unread = np.setdiff1d(added, trace.labels)  # readahead brought them in, in vain
    labels = np.concatenate([trace.labels, unread])
    return replace(trace, labels=labels, anon=np.zeros(len(labels), dtype=np.bool_)), before


def _pages(recording: Recording, events: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """All pages of some events, numbered as in Recording.page_numbers."""
    bases = np.concatenate([[0], np.cumsum([file.pages for file in recording.files], dtype=np.int64)])
    first, lengths = recording.first[events], (recording.last - recording.first + 1)[events]
    starts = bases[recording.file[events]] + first - np.concatenate([[0], np.cumsum(lengths)])[:-1]
    return np.repeat(starts, lengths) + np.arange(lengths.sum())


def _before(recording: Recording, trace: Trace, before: npt.NDArray[np.int64], kind: int) -> list[tuple[int, int]]:
    """The pages of all events of a kind, each with the access before which it was."""
    events = recording.kind == kind
    when = np.repeat(before[events], (recording.last - recording.first + 1)[events])
    pages = _pages(recording, events)
    known = np.isin(pages, trace.labels)
    return list(zip(when[known].tolist(), pages[known].tolist(), strict=True))


def _movements(recording: Recording) -> tuple[int, int, int]:
    came = _pages(recording, recording.kind == ADD)
    gone = _pages(recording, np.isin(recording.kind, (DELETE, DELETE_FOREIGN)))
    return len(came), len(came) - len(np.unique(came)), len(gone)
