"""Problems about the lists, the shadow entries, and what a refault distance says."""

from __future__ import annotations

import random
from collections.abc import Sequence

from kernelnotes.quiz import Draft, Table
from kernelnotes.refault import Memory

_WORDS = {
    "fifo": "one list, first in, first out; a hit changes nothing",
    "lru": "one list; a hit makes the page the newest, and the oldest one goes",
    "clock": "one list; a hit sets the page's bit; an oldest page with its bit set becomes the newest, without the bit",
    "balanced-2012": "new pages enter the inactive list, a hit there activates; before it evicts, reclaim moves active "
    "pages to the inactive list while that holds less than half of the memory",
    "proposal-2012": "as Linux was in 2012: a hit on the inactive list activates, reclaim keeps half of the memory "
    "inactive; and a refault with R smaller than the active list first demotes the oldest active page",
}


def _listed(pages: Sequence[object]) -> str:
    return " ".join(map(str, pages)) or "-"


def _interesting(rng: random.Random, rules: str, memory: int, length: int) -> str:
    """Accesses with at least one hit, one refault and two evictions in them."""
    while True:
        letters = "ABCDEFGHIJKLMNOP"[: rng.randint(memory + 1, memory + 3)]
        pages = "".join(rng.choices(letters, [1 / (1 + i) for i in range(len(letters))], k=length))
        m = Memory(memory, rules=rules)
        events = m.run(pages)
        if any(e.hit for e in events) and any(e.refault for e in events) and m.counts["evictions"] >= 2:
            return pages


def by_hand(rng: random.Random) -> Draft:
    """Follow a dozen accesses through the lists."""
    rules, memory = rng.choice(tuple(_WORDS)), rng.randint(3, 5)
    pages = _interesting(rng, rules, memory, rng.randint(10, 14))
    m = Memory(memory, rules=rules)
    after = m.rules.choices.entry_after_tick
    rows = []
    for page in pages:
        event = m.access(page)
        entries = " ".join(f"{name}:{entry}" for name, entry in m.shadow.items()) or "-"
        lists = (_listed(m.inactive), _listed(m.active))
        rows.append((page, event.what, *lists, entries, str(m.workingset_time)))
    one_list = rules in ("fifo", "lru", "clock")
    counts = m.counts
    return Draft(
        title=f"{len(pages)} accesses by hand, {rules}",
        question=(
            f"A memory of {memory} pages is empty. The rules are `{rules}`: {_WORDS[rules]}.",
            "A clock ticks when a page leaves the inactive list, by eviction or by activation. The shadow entry of "
            f"an evicted page is what the clock shows {'after' if after else 'before'} the tick of that eviction. R is "
            "what the clock shows at the refault, before room is made for the page, less the entry.",
            f"The program touches, in this order: {' '.join(pages)}.",
            "Which accesses fault, and which of these are refaults, with which refault distance R? What is on the "
            f"list{'' if one_list else 's'} at the end, newest first?",
        ),
        steps=(
            Table(
                ("access", "what happens", "inactive, newest first", "active", "shadow entries", "clock"), tuple(rows)
            ),
            "R is the clock in the row above, less the page's shadow entry there.",
        ),
        answer=f"{counts['faults']} faults, {counts['refaults']} of them after an eviction; "
        f"inactive: {_listed(m.inactive)}" + ("." if one_list else f"; active: {_listed(m.active)}."),
    )


def loop(rng: random.Random) -> Draft:
    """What a loop that does not fit does to a list, and what R says about it."""
    rules = rng.choice(("fifo", "lru", "balanced-2012"))
    memory = rng.randint(6, 40)
    pages, laps = memory + rng.randint(1, memory // 2), rng.randint(3, 6)
    m = Memory(memory, rules=rules)
    events = [m.run(range(pages)) for _ in range(laps)]
    faults = [sum(not e.hit for e in lap) for lap in events]
    [distance] = {e.distance for lap in events[1:] for e in lap if e.refault}
    own = pages - memory - distance  # 1 where the entry is written after the page's own eviction ticked
    return Draft(
        title=f"A loop of {pages} pages through a memory of {memory}",
        question=(
            f"A program reads pages 0, 1, ..., {pages - 1} and begins again, {laps} laps in all. Memory holds {memory} "
            f"pages and is empty at first. The rules are `{rules}`: {_WORDS[rules]}.",
            "How many faults are there in each lap? Which refault distance does every refault have, and what does it "
            "say about the pages that are missing?",
        ),
        steps=(
            f"In the first lap every page is new: {pages} faults.",
            "A page is evicted shortly before the loop comes back to it: the oldest page is always the one that will "
            "be needed next. So every access faults, lap after lap.",
            f"Between the writing of a page's shadow entry and its refault the clock ticks {distance} times"
            + (
                ", once for each of the other pages that go; to hold the page, memory would need places for these and "
                "for the page itself."
                if own
                else ": for the page's own eviction and for each of the others that follow. As many places are missing."
            ),
            Table(("lap", "faults"), tuple((str(i), str(n)) for i, n in enumerate(faults, 1))),
        ),
        answer=f"{faults[0]} faults in each of the {laps} laps, {sum(faults)} in all. R = {distance}, and "
        f"{'R + 1' if own else 'R'} pages are missing: {memory} + {distance + own} = {pages}.",
    )


def sizes(rng: random.Random) -> Draft:
    """LRU at every size, from the distances alone."""
    letters = "ABCDEF"[: rng.randint(4, 6)]
    pages = "".join(rng.choices(letters, k=rng.randint(10, 14)))
    distinct = len(set(pages))
    rows, since = [], list[str]()
    for page in pages:
        between = len(since) - since.index(page) - 1 if page in since else None
        if page in since:
            since.remove(page)
        since.append(page)
        rows.append((page, "never seen" if between is None else str(between)))
    misses = []
    for size in range(1, distinct + 1):
        m = Memory(size, rules="lru")
        m.run(pages)
        misses.append((str(size), str(m.counts["faults"])))
    return Draft(
        title="LRU at every size",
        question=(
            f"A program touches {' '.join(pages)}.",
            f"How many misses has LRU with a memory of 1, 2, ... {distinct} pages? Do not simulate each: one pass "
            "over the accesses is enough.",
        ),
        steps=(
            "For each access count the distinct other pages since the last access to the same page, the reuse "
            "distance. LRU with n pages hits exactly where it is smaller than n, because the n pages touched last are "
            "what it holds.",
            Table(("access", "reuse distance"), tuple(rows)),
            Table(("memory", "misses"), tuple(misses)),
        ),
        answer="; ".join(f"{size}: {count}" for size, count in misses) + ".",
    )


def verdict(rng: random.Random) -> Draft:
    """What a kernel does at one refault, with nothing but four numbers."""
    rules = rng.choice(("proposal-2012", "linux-3.15"))
    wanted = rng.random() < 0.5  # whether the refault shall act
    while True:
        memory = rng.randint(4, 12)
        pages = _interesting(rng, rules, memory, rng.randint(30, 60))
        m = Memory(memory, rules=rules)
        found = None
        for page in pages:
            clock, active, inactive, entry = m.workingset_time, m.active_length, len(m.inactive), m.shadow.get(page, 0)
            event = m.access(page)
            if rules == "proposal-2012":
                acts, plain = event.distance < active, bool(event.demoted) == (event.distance < active)
            else:
                acts, plain = page in m.active, not event.demoted
            # Plain: reclaim moved nothing from list to list besides, so that the lengths told are those that decide.
            if event.refault and event.distance > 0 and active > 0 and plain and acts == wanted:
                found = (page, clock, active, inactive, entry, event)
        if found:
            break
    page, clock, active, inactive, entry, event = found
    before = event.distance == clock - entry  # R is taken before room is made for the page, or after that
    clock, missing = entry + event.distance, event.distance + before
    if rules == "proposal-2012":
        sign, rule = "<", "if R is smaller than the active list, its oldest page is demoted"
        does = "demotes the oldest active page and leaves the new page inactive"
        rests = "leaves the active list alone; the page starts on the inactive list like any other"
    else:
        sign, rule = "<=", "if R is no larger than the active list, the page goes there at once"
        does, rests = "puts the page on the active list at once", "starts the page on the inactive list like any other"
    others = f"{event.distance} pages have left the inactive list since this one did"
    return Draft(
        title=f"One refault under {rules}",
        question=(
            f"The inactive list holds {inactive} pages, the active list {active}. The program touches page {page}, "
            f"which is not in memory; its slot holds a shadow entry that says {entry}. "
            + ("The clock" if before else "Room is made for the page; then the clock")
            + f" stands at {clock}.",
            "What is the refault distance? How many pages longer, at most, would the inactive list have had to be to "
            f"hold the page until now? And what does `{rules}` do ({rule})?",
        ),
        steps=(
            f"R = {clock} - {entry} = {event.distance}: {others}.",
            f"Places for these {event.distance} and one for the page itself, {missing}, would have kept it."
            if before
            else f"The last of these went to make room for the page itself: {missing} places would have kept it.",
            f"The pages to make it longer can only come from the active list: R {sign} {active} "
            f"{'holds' if wanted else 'does not hold'}.",
        ),
        answer=f"R = {event.distance}; {missing} pages; it {does if wanted else rests}.",
    )


KINDS = (by_hand, loop, sizes, verdict)
