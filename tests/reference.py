"""The article's rules read a second time: lists and dicts of page names, slow and plain.

The oracle of test_refault.py.  It was written from the article and the rules below, without a look at
kernelnotes/refault, and shares no code with it.  Lists are newest page first.

    On a hit       an active page stays where it is; an inactive one is activated, and workingset_time advances.
    On a fault (a) R = workingset_time - shadow entry, if there is one;
               (b) the proposal, for a page of a file with R < len(active): the oldest active page is demoted;
               (c) if memory is full: active pages are demoted until the inactive list has its share of memory (half:
                   "active may not outgrow inactive") and is not empty, then the oldest inactive page is evicted;
               (d) the page enters the newest end: of the inactive list, or of the active one if it is anonymous.
"""

from functools import cache
from typing import NamedTuple

HIT, COLD = -1, -2


class Happened(NamedTuple):
    """One access; fields as in refault.Event."""

    page: object
    distance: int
    activated: tuple
    demoted: tuple
    evicted: tuple
    soft_fault: bool


class Reference:
    """A memory under `rules`: "fifo", "lru", "balanced-2012", "proposal-2012", or "fixed lists"."""

    def __init__(self, memory, rules, anon=(), inactive_share=50, entry_after_tick=None, active_pages=0, ticks=True):
        self.memory = memory  # for "fixed lists" the length of the inactive list alone
        self.rules = rules
        self.anon = set(anon)
        self.inactive_share = inactive_share
        self.active_pages = active_pages  # for "fixed lists" the length of the active list
        if entry_after_tick is None:
            entry_after_tick = rules in ("balanced-2012", "proposal-2012")
        self.entry_after_tick = entry_after_tick
        self.ticks = ticks  # whether an activation advances workingset_time
        self.active = []
        self.inactive = []
        self.unmapped = set()
        self.shadow = {}
        self.workingset_time = 0
        self.counts = dict.fromkeys(
            (
                "faults",
                "refaults",
                "activations",
                "refault_activations",
                "deactivations",
                "evictions",
                "soft_faults",
            ),
            0,
        )

    def access(self, page):
        """Touch `page`, and say what happened."""
        self.activated, self.demoted, self.evicted, self.soft_fault = [], [], [], False
        distance = self.hit(page) if page in self.active or page in self.inactive else self.fault(page)
        return Happened(
            page, distance, tuple(self.activated), tuple(self.demoted), tuple(self.evicted), self.soft_fault
        )

    def run(self, pages):
        """`access` for each of `pages`."""
        return [self.access(page) for page in pages]

    def hit(self, page):
        if self.rules == "lru":
            self.inactive.remove(page)
            self.inactive.insert(0, page)
        elif self.rules != "fifo" and page in self.inactive:
            self.activate(page)
        return HIT

    def activate(self, page):
        self.inactive.remove(page)
        self.workingset_time += 1 if self.ticks else 0
        self.counts["activations"] += 1
        self.activated.append(page)
        if page in self.unmapped:
            self.unmapped.remove(page)
            self.counts["soft_faults"] += 1
            self.soft_fault = True
        self.active.insert(0, page)
        if self.rules == "fixed lists" and len(self.active) > self.active_pages:
            self.demote()

    def fault(self, page):
        self.counts["faults"] += 1
        distance = COLD
        if page in self.shadow:
            distance = self.workingset_time - self.shadow.pop(page)
            self.counts["refaults"] += 1
            if self.rules == "proposal-2012" and page not in self.anon and distance < len(self.active):
                self.demote()
        if self.rules == "fixed lists":
            if len(self.inactive) == self.memory:
                self.evict()
        elif len(self.active) + len(self.inactive) == self.memory:
            while not self.inactive or (
                self.rules in ("balanced-2012", "proposal-2012")
                and len(self.inactive) * 100 < self.inactive_share * self.memory
            ):
                self.demote()
            self.evict()
        if page in self.anon and self.rules in ("balanced-2012", "proposal-2012"):
            self.active.insert(0, page)
        else:
            self.inactive.insert(0, page)
        return distance

    def demote(self):
        page = self.active.pop()
        self.inactive.insert(0, page)
        self.unmapped.add(page)
        self.counts["deactivations"] += 1
        self.demoted.append(page)

    def evict(self):
        page = self.inactive.pop()
        self.unmapped.discard(page)
        self.workingset_time += 1
        self.shadow[page] = self.workingset_time if self.entry_after_tick else self.workingset_time - 1
        self.counts["evictions"] += 1
        self.evicted.append(page)


def fewest_faults(pages, memory):
    """The fewest faults that any choice of victims leads to: all of them are tried."""
    pages = tuple(pages)

    @cache
    def from_here(i, resident):
        if i == len(pages):
            return 0
        if pages[i] in resident:
            return from_here(i + 1, resident)
        if len(resident) < memory:
            return 1 + from_here(i + 1, resident | {pages[i]})
        return 1 + min(from_here(i + 1, resident - {victim} | {pages[i]}) for victim in resident)

    return from_here(0, frozenset())
