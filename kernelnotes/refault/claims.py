"""The central claim of the article, put to the test.

    "Had the inactive list been R pages longer, the eviction and the refault would have been avoided."  (point M10)

The claim is about the inactive list alone, so it is tested where that list has a length of its own: on two lists of
fixed length (`fixed_lists`), and on one (`fifo`, where a hit changes nothing, and `lru`).  For every refault the
trace is replayed with longer inactive lists.

It holds, as an upper bound, where a page that was activated stays active, and under LRU: a longer list then always
holds whatever the shorter one holds.  It fails where activated pages come back to the inactive list, and under FIFO.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator

import numpy as np
import pandas as pd

from kernelnotes.errors import BadInput
from kernelnotes.refault import article, yardsticks
from kernelnotes.refault.choices import Choices
from kernelnotes.refault.memory import Memory
from kernelnotes.refault.replays import replay
from kernelnotes.refault.rules import Rules, is_integer, rule_set
from kernelnotes.traces import Trace, TraceLike, as_trace

ALWAYS = 2**16  # active pages; `check_claim` refuses traces with more distinct ones


def fixed_lists(active_pages: int = ALWAYS) -> Rules:
    """An inactive list whose length is given to each replay, and an active list of `active_pages` besides.

    With the default a page that was activated stays active; with 0 every hit brings the page back to the newest end.
    """
    name = "fixed lists, " + ("active for ever" if active_pages == ALWAYS else f"{active_pages} active")
    return Rules(name, article.fixed_lists, Choices(entry_after_tick=0, active_pages=active_pages))


def check_claim(trace: TraceLike, memory: int, rules: str | Rules = "fifo") -> pd.DataFrame:
    """For every refault: would a list R pages longer have kept the page?

    memory : length of the inactive list in pages
    rules : `fixed_lists(active_pages)`, or a rule set whose step function is `fifo` or `lru`
    Returns a DataFrame, one row per refault: `access` (its index), `page`, `R`, `holds` (with a list of memory + R
    pages it would have been resident), `needed` (the fewest extra pages with which it would).
    Costs one replay for each list length; raises BadInput for rules without an inactive list of fixed length.

    >>> refault.check_claim("ABCABC", 2, refault.RULES["fifo"])[["R", "needed"]].to_dict("list")
    {'R': [1, 1, 1], 'needed': [1, 1, 1]}
    """
    trace, rules = as_trace(trace), rule_set(rules)
    if rules.step not in (article.fixed_lists, yardsticks.fifo, yardsticks.lru):
        raise BadInput(
            f"rules {rules.name!r}: expected 'fifo', 'lru' or fixed_lists(), where the list has a fixed length"
        )
    if rules.choices.active_pages == ALWAYS < trace.unique:
        raise BadInput(
            f"{trace.name}: {trace.unique} distinct pages, expected at most {ALWAYS} to stay active for ever"
        )
    distances = replay(trace, memory, rules).distances
    refaults = np.flatnonzero(distances >= 0)
    all_fit = trace.unique - memory  # so many extra pages, and nothing is ever evicted
    distance = np.minimum(distances[refaults], all_fit)
    holds = np.zeros(len(refaults), dtype=np.bool_)
    needed = np.full(len(refaults), all_fit)
    for extra in range(all_fit if len(refaults) else -1, -1, -1):  # downwards: the fewest extra pages are written last
        resident = replay(trace, memory + extra, rules, points=1).hit[refaults]
        holds |= resident & (distance == extra)
        needed[resident] = extra
    return pd.DataFrame(
        {
            "access": refaults,
            "page": trace.labels[trace.pages[refaults]],
            "R": distances[refaults],
            "holds": holds,
            "needed": needed,
        }
    )


def counterexample(rules: str | Rules = "fifo", longest: int = 10, largest_memory: int = 3) -> tuple[Trace, int] | None:
    """The shortest trace, in the smallest memory, with a refault for which the claim fails; None if there is none.

    Tries every trace of up to `longest` accesses, up to the names of its pages, in every memory of up to
    `largest_memory` pages.
    """
    for what, value in (("longest", longest), ("largest_memory", largest_memory)):
        if not is_integer(value) or not 1 <= value <= 10:
            raise BadInput(f"{what} is {value!r}, expected an integer from 1 to 10")
    for length in range(3, longest + 1):
        for pages in _traces(length):
            for memory in range(1, min(largest_memory, max(pages)) + 1):
                trace = Trace.of(["ABCDEFGHIJ"[page] for page in pages], name="counterexample")
                last = check_claim(trace, memory, rules).tail(1)
                if len(last) and not last["holds"].item():
                    return trace, memory
    return None


def _traces(length: int) -> Iterator[list[int]]:
    # Every sequence in which a new page always gets the next free number, so that none occurs twice under other names.
    def extend(pages: list[int], used: int) -> Iterator[list[int]]:
        if len(pages) == length:
            yield pages
            return
        for page in range(used + 1):
            yield from extend([*pages, page], max(used, page + 1))

    return extend([], 0)


OUTCOMES = ("reactivated", "evicted for good", "evicted, read in again", "still inactive")


def demotion_outcomes(trace: TraceLike, memory: int, rules: str | Rules = "proposal-2012") -> pd.Series[int]:
    """What became of each page that a refault moved down from the active list (point M12).

    Counts by outcome: it was reactivated by a soft fault; or evicted, and either not used again or read in again later;
    or the trace ended while it was on the inactive list.  Demotions that only balance the lists are not counted.
    Steps through the trace one access at a time, at some 1e5 accesses per second.
    """
    trace, m = as_trace(trace), Memory(memory, rules)
    on_trial: set[Hashable] = set()
    evicted: set[Hashable] = set()
    counts = dict.fromkeys(OUTCOMES, 0)
    for page in trace:
        active = m.active_length
        event = m.access(page)
        if event.refault and page in evicted:
            evicted.remove(page)
            counts["evicted, read in again"] += 1
        for gone in on_trial.intersection(event.activated):
            on_trial.remove(gone)
            counts["reactivated"] += 1
        if event.refault and event.distance < active:
            on_trial.add(event.demoted[0])
        for gone in on_trial.intersection(event.evicted):
            on_trial.remove(gone)
            evicted.add(gone)
    counts["evicted for good"], counts["still inactive"] = len(evicted), len(on_trial)
    return pd.Series(counts, name="demotions")
