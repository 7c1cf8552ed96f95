"""The state of a memory, and what can be done to its lists: the words that every rule is made of.

Everything here is integers in flat arrays or lists and needs nothing but Python; `compiled.py` makes it machine code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from kernelnotes.intrinsics import AHEAD, prefetch

if TYPE_CHECKING:
    from kernelnotes.refault.choices import Choices

HIT, COLD = -1, -2  # in place of a refault distance: the page was in memory; it has never been in memory


class Kernel(NamedTuple):
    """What the step function `linux` needs besides; empty for the others.

    batch : two folio batches of BATCH pages each, to be added to a list, to be activated
    flushes : access indices before which somebody brought the memory statistics up to date, ascending
    foreign : access indices, then as many pages: before that access, somebody from outside evicted that page
    ahead : the same of pages that readahead brought in
    away : per page, 0, or 1 or 2 if its shadow entry is that of an eviction from outside (2: its node was freed at
        that time)
    way : per access how the page is accessed, see Trace.mapped; empty if by read() throughout
    mapping : per page, whether page tables map it, and as what, as in `way`; as empty
    node_of : per page, the number of the xarray node that holds it, from 1 up; empty if nodes cost nothing
    parents : per node, how many nodes above it come into being with it
    held, entries : per node, its pages in memory; those and its shadow entries
    older, newer : per node, its neighbours in the list of those without a page in memory; 0 is both its ends
    freed : per node, the time when it was last freed with its shadow entries; NEVER
    """

    batch: Any
    flushes: Any
    foreign: Any
    ahead: Any
    away: Any
    way: Any
    mapping: Any
    node_of: Any
    parents: Any
    held: Any
    entries: Any
    older: Any
    newer: Any
    freed: Any


class State(NamedTuple):
    """Everything that a step function reads and writes: integers in flat arrays, or in plain lists.

    word : one integer per distinct page, see below
    ring : two rings of page numbers, one per list, each of mask + 1 slots
    n : clock, counters, cursors and lengths of the lists, at the indices below
    next_use : `opt` only; per access, the index of the next access to the same page
    due : `opt` only; per page, the index of its next access
    kernel : step function `linux` only
    memory : pages that fit into memory
    mask : slots of a ring, a power of two >= 2 * memory, minus 1
    ghosts : for rules with Choices.ghosts; two lists of pages that have left memory and are remembered, a State too
    target : for rules with Choices.ghosts; one float, `arc` only: how long T1 should be in pages, p in the paper
    """

    word: Any
    ring: Any
    n: Any
    next_use: Any
    due: Any
    kernel: Kernel
    memory: int
    mask: int
    ghosts: Any = ()
    target: Any = ()


INACTIVE, ACTIVE = 0, 1  # the two lists

# word[page] of a page in memory: RESIDENT and other flags, above them its slot in the ring of its list.
# word[page] of a page out of memory: SHADOW if it has been here, and above ENTRY the time of its eviction.
RESIDENT, ON_ACTIVE, ANON, UNMAPPED, REFERENCED, IN_BATCH, SLOT = 1, 2, 4, 8, 16, 32, 6
SHADOW, ENTRY = 2, 3
TIME_MASK = (1 << 28) - 1  # time wraps, as behind the kernel's EVICTION_MASK: 36 bits there, 28 in a word of 4 bytes

# n[...]; the first three have one place for each list
NEWEST, OLDEST, LENGTH, WORKINGSET_TIME, NOW = 0, 2, 4, 6, 7
COUNTERS = ("faults", "refaults", "activations", "refault_activations", "deactivations", "evictions", "soft_faults")
FAULTS, REFAULTS, ACTIVATIONS, REFAULT_ACTIVATIONS, DEACTIVATIONS, EVICTIONS, SOFT_FAULTS = range(8, 8 + len(COUNTERS))
OWN = 8 + len(COUNTERS)  # from here up, what each step function counts besides

# --- The lists: no rule below knows how they are stored, but for `opt`, whose list is a heap in the ring's place. -----
# Each list is a ring of page numbers in order of arrival; a page that leaves from the middle leaves an EMPTY slot.

EMPTY = -1


def push_newest(m: State, which: int, page: int, flags: int) -> None:
    """Put `page` at the newest end of list `which` (INACTIVE or ACTIVE), with `flags` in its word."""
    slot = m.n[NEWEST + which]
    if slot - m.n[OLDEST + which] > m.mask:
        slot = _squeeze(m, which)
    m.ring[which * (m.mask + 1) + (slot & m.mask)] = page
    m.word[page] = (slot & m.mask) << SLOT | flags | which * ON_ACTIVE | RESIDENT
    m.n[NEWEST + which] = slot + 1
    m.n[LENGTH + which] += 1


def oldest(m: State, which: int) -> int:
    """The page at the oldest end of list `which`; IndexError if the list is empty."""
    if m.n[LENGTH + which] == 0:
        raise IndexError("there is no oldest page, the list is empty")
    base, slot = which * (m.mask + 1), m.n[OLDEST + which]
    while m.ring[base + (slot & m.mask)] == EMPTY:
        slot += 1
    m.n[OLDEST + which] = slot
    page: int = m.ring[base + (slot & m.mask)]
    return page


def take_oldest(m: State, which: int) -> int:
    """Take the page at the oldest end off list `which`; IndexError if the list is empty."""
    page = oldest(m, which)
    m.n[OLDEST + which] += 1
    m.n[LENGTH + which] -= 1
    prefetch(m.word, m.ring[which * (m.mask + 1) + (m.n[OLDEST + which] + AHEAD & m.mask)])  # the next ones to go
    return page


def remove(m: State, which: int, page: int) -> None:
    """Take `page` off list `which`, wherever in the list it is."""
    m.ring[which * (m.mask + 1) + (m.word[page] >> SLOT)] = EMPTY
    m.n[LENGTH + which] -= 1


def _squeeze(m: State, which: int) -> int:
    # Close the gaps.  At least half of the slots of a full ring are EMPTY, so this costs O(1) per push.
    base, oldest = which * (m.mask + 1), m.n[OLDEST + which]
    to: int = oldest
    for slot in range(oldest, m.n[NEWEST + which]):
        page = m.ring[base + (slot & m.mask)]
        m.ring[base + (to & m.mask)] = page
        to += page != EMPTY
    for slot in range(oldest, to):
        page = m.ring[base + (slot & m.mask)]
        m.word[page] = (slot & m.mask) << SLOT | m.word[page] & (1 << SLOT) - 1
    return to


def look_up_shadow(m: State, word: int) -> int:
    """Count a fault; the refault distance by the shadow entry in `word`, or COLD where there is none."""
    m.n[FAULTS] += 1
    if not word & SHADOW:
        return COLD
    m.n[REFAULTS] += 1
    distance: int = m.n[WORKINGSET_TIME] - (word >> ENTRY) & TIME_MASK
    return distance


def is_full(m: State) -> bool:
    """Whether both lists together fill the memory."""
    full: bool = m.n[LENGTH + INACTIVE] + m.n[LENGTH + ACTIVE] == m.memory
    return full


def evict(m: State, rules: Choices) -> None:
    """Evict the oldest inactive page."""
    leave_shadow(m, rules, take_oldest(m, INACTIVE))


def leave_shadow(m: State, rules: Choices, page: int) -> None:
    """Put a shadow entry, the time, in the place of an evicted page."""
    entry = m.n[WORKINGSET_TIME] + rules.entry_after_tick & TIME_MASK
    m.word[page] = entry << ENTRY | m.word[page] & ANON | SHADOW
    m.n[WORKINGSET_TIME] += 1
    m.n[EVICTIONS] += 1


OPERATIONS = (push_newest, oldest, take_oldest, remove, _squeeze, look_up_shadow, is_full, evict, leave_shadow)
