"""The state of a memory, the operations on its lists, and the rules: the code that chapters show and replays run.

Everything here is integers in flat arrays or lists and needs nothing but Python; `compiled.py` makes it machine code.
What is compiled stays in this one file: numba keeps its result on disk and asks only this file whether it is stale.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from numbers import Integral
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from kernelnotes.errors import BadInput

HIT, COLD = -1, -2  # in place of a refault distance: the page was in memory; it has never been in memory


class State(NamedTuple):
    """Everything that a step function reads and writes: integers in flat arrays, or in plain lists.

    word : one integer per distinct page, see below
    ring : two rings of page numbers, one per list, each of mask + 1 slots
    n : clock, counters, cursors and lengths of the lists, at the indices below
    next_use : `opt` only; per access, the index of the next access to the same page
    due : `opt` only; per page, the index of its next access
    memory : pages that fit into memory
    mask : slots of a ring, a power of two >= 2 * memory, minus 1
    """

    word: Any
    ring: Any
    n: Any
    next_use: Any
    due: Any
    memory: int
    mask: int


class Choices(NamedTuple):
    """What distinguishes the rule sets of the two-list family, step function `two_lists`; 0 and 1 are no and yes."""

    inactive_share: int = 50  # percent of memory below which reclaim first moves active pages to the inactive list
    entry_after_tick: int = 1  # the shadow entry keeps the time after its own eviction ticked (2012, 3.15), or before
    activation_ticks: int = 1  # an activation advances workingset_time too
    active_pages: int = 0  # step function `fixed_lists` only: length of the active list
    refault_demotes: int = 0  # a refault with R < length of the active list demotes one active page


INACTIVE, ACTIVE = 0, 1  # the two lists

# word[page] of a page in memory: RESIDENT and other flags, above them its slot in the ring of its list.
# word[page] of a page out of memory: SHADOW if it has been here, and above ENTRY the time of its eviction.
RESIDENT, ON_ACTIVE, ANON, UNMAPPED, SLOT = 1, 2, 4, 8, 4
SHADOW, ENTRY = 2, 3
TIME_MASK = (
    1 << 28
) - 1  # time wraps, as behind the kernel's EVICTION_MASK (36 bits there, 28 here: a word is 4 bytes)

# n[...]; the first three have one place for each list
NEWEST, OLDEST, LENGTH, WORKINGSET_TIME, NOW = 0, 2, 4, 6, 7
COUNTERS = ("faults", "refaults", "activations", "refault_activations", "deactivations", "evictions", "soft_faults")
FAULTS, REFAULTS, ACTIVATIONS, REFAULT_ACTIVATIONS, DEACTIVATIONS, EVICTIONS, SOFT_FAULTS = range(8, 8 + len(COUNTERS))

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


def take_oldest(m: State, which: int) -> int:
    """Take the page at the oldest end off list `which`; IndexError if the list is empty."""
    if m.n[LENGTH + which] == 0:
        raise IndexError("take_oldest: the list is empty")
    base, slot = which * (m.mask + 1), m.n[OLDEST + which]
    while m.ring[base + (slot & m.mask)] == EMPTY:
        slot += 1
    m.n[OLDEST + which] = slot + 1
    m.n[LENGTH + which] -= 1
    prefetch(m.word, m.ring[base + ((slot + AHEAD) & m.mask)])  # the next ones to go
    page: int = m.ring[base + (slot & m.mask)]
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


# --- The rules: one access each.  They return HIT, COLD or the refault distance R. ------------------------------------


def two_lists(m: State, rules: Choices, page: int) -> int:
    """One access under the rules of the article (LWN 495543).

    A hit on the active list moves nothing; the kernel only sets a bit.
    Source: mm/swap.c mark_page_accessed(), mm/vmscan.c, v3.3.
    """
    word = m.word[page]
    if word & RESIDENT:
        if not word & ON_ACTIVE:
            activate(m, rules, page)
        return HIT
    distance = look_up_shadow(m, word)
    asks = rules.refault_demotes and not word & ANON
    if asks and 0 <= distance < m.n[LENGTH + ACTIVE]:
        demote(m)
    if is_full(m):
        reclaim(m, rules)
    starts_on = ACTIVE if word & ANON else INACTIVE
    push_newest(m, starts_on, page, word & ANON)
    return distance


def activate(m: State, rules: Choices, page: int) -> None:
    """An inactive page was referenced; if unmapped, by a soft fault."""
    m.n[SOFT_FAULTS] += (m.word[page] & UNMAPPED) != 0
    m.n[ACTIVATIONS] += 1
    m.n[WORKINGSET_TIME] += rules.activation_ticks
    remove(m, INACTIVE, page)
    push_newest(m, ACTIVE, page, m.word[page] & ANON)


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


def activate_refault(m: State, rules: Choices, page: int) -> None:
    """Put a refaulted page on the active list at once, as Linux 3.15 does if R is small enough.

    Source: mm/filemap.c add_to_page_cache_lru(), commit a528910e12ec.
    """
    m.n[REFAULT_ACTIVATIONS] += 1
    m.n[WORKINGSET_TIME] += rules.activation_ticks
    push_newest(m, ACTIVE, page, m.word[page] & ANON)


def demote(m: State) -> None:
    """Unmap the oldest active page, put it at the newest end of the inactive list.

    The article unmaps it here; the kernel does so a step later, at the end of the inactive list, and pages that are
    only read() are never mapped.  Source: mm/vmscan.c shrink_active_list(), shrink_page_list(), v3.3.
    """
    page = take_oldest(m, ACTIVE)
    push_newest(m, INACTIVE, page, m.word[page] & ANON | UNMAPPED)
    m.n[DEACTIVATIONS] += 1


def reclaim(m: State, rules: Choices) -> None:
    """Make room for one page: bring the lists into balance, then evict.

    Source: mm/vmscan.c inactive_file_is_low_global(), shrink_list(), v3.3.
    """
    wanted = max(1, (rules.inactive_share * m.memory + 99) // 100)
    while m.n[LENGTH + INACTIVE] < wanted:
        demote(m)
    evict(m, rules)


def evict(m: State, rules: Choices) -> None:
    """Evict the oldest inactive page."""
    leave_shadow(m, rules, take_oldest(m, INACTIVE))


def leave_shadow(m: State, rules: Choices, page: int) -> None:
    """Put a shadow entry, the time, in the place of an evicted page."""
    entry = m.n[WORKINGSET_TIME] + rules.entry_after_tick & TIME_MASK
    m.word[page] = entry << ENTRY | m.word[page] & ANON | SHADOW
    m.n[WORKINGSET_TIME] += 1
    m.n[EVICTIONS] += 1


def fixed_lists(m: State, rules: Choices, page: int) -> int:
    """Two lists of fixed length, to ask what a longer inactive list would have done: `m.memory` is that list alone."""
    word = m.word[page]
    if word & RESIDENT:
        if not word & ON_ACTIVE:
            activate(m, rules, page)
            if m.n[LENGTH + ACTIVE] > rules.active_pages:
                demote(m)
        return HIT
    distance = look_up_shadow(m, word)
    if m.n[LENGTH + INACTIVE] == m.memory:
        evict(m, rules)
    push_newest(m, INACTIVE, page, word & ANON)
    return distance


def fifo(m: State, rules: Choices, page: int) -> int:
    """First in, first out: an inactive list alone, from which nothing is activated."""
    word = m.word[page]
    if word & RESIDENT:
        return HIT
    return read_in(m, rules, page)


def read_in(m: State, rules: Choices, page: int) -> int:
    """A fault under rules of one list: make room if there is none, put `page` at the newest end."""
    word = m.word[page]
    distance = look_up_shadow(m, word)
    if is_full(m):
        evict(m, rules)
    push_newest(m, INACTIVE, page, word & ANON)
    return distance


def lru(m: State, rules: Choices, page: int) -> int:
    """Least recently used goes first: one list, and every access brings the page to its newest end."""
    word = m.word[page]
    if word & RESIDENT:
        remove(m, INACTIVE, page)
        push_newest(m, INACTIVE, page, word & ANON)
        return HIT
    return read_in(m, rules, page)


def opt(m: State, rules: Choices, page: int) -> int:
    """The page whose next use is farthest away goes first (Belady 1966): the fewest faults that are possible.

    Needs to know the future.  The list is a heap here, the page that is due last on top.
    """
    word = m.word[page]
    m.due[page] = m.next_use[m.n[NOW]]
    m.n[NOW] += 1
    if word & RESIDENT:
        _sift_up(m, word >> SLOT, page, word & ANON)
        return HIT
    distance = look_up_shadow(m, word)
    if is_full(m):
        leave_shadow(m, rules, m.ring[0])
        _sift_down(m, page, word & ANON)
    else:
        m.n[LENGTH + INACTIVE] += 1
        _sift_up(m, m.n[LENGTH + INACTIVE] - 1, page, word & ANON)
    return distance


def _place(m: State, slot: int, page: int, flags: int) -> None:
    m.ring[slot] = page
    m.word[page] = slot << SLOT | flags & ANON | RESIDENT


def _sift_up(m: State, slot: int, page: int, flags: int) -> None:
    while slot > 0 and m.due[m.ring[(slot - 1) // 2]] < m.due[page]:
        parent = m.ring[(slot - 1) // 2]
        _place(m, slot, parent, m.word[parent])
        slot = (slot - 1) // 2
    _place(m, slot, page, flags)


def _sift_down(m: State, page: int, flags: int) -> None:
    slot, length = 0, m.n[LENGTH + INACTIVE]
    while 2 * slot + 1 < length:
        child = 2 * slot + 1
        if child + 1 < length and m.due[m.ring[child + 1]] > m.due[m.ring[child]]:
            child += 1
        if m.due[m.ring[child]] <= m.due[page]:
            break
        _place(m, slot, m.ring[child], m.word[m.ring[child]])
        slot = child
    _place(m, slot, page, flags)


# --- The loop. --------------------------------------------------------------------------------------------------------

Step: TypeAlias = "Callable[[State, Choices, int], int]"
AHEAD = 16  # accesses; long enough for a line of memory to arrive


def prefetch(array: Any, index: int) -> None:
    """Ask the processor to fetch array[index] early.  Compiled code only; changes no result."""


def run(step: Step, m: State, rules: Choices, pages: Any, start: int, stop: int, distances: Any) -> None:
    """Accesses start to stop - 1 of `pages`; `distances` has one place for each access of `pages`, or none at all."""
    keep = len(distances) > 0
    for i in range(start, stop):
        if i + AHEAD < len(pages):
            prefetch(m.word, pages[i + AHEAD])
        distance = step(m, rules, pages[i])
        if keep:
            distances[i] = distance


def run_built_in(which: int, m: State, rules: Choices, pages: Any, start: int, stop: int, distances: Any) -> None:
    """`run` with the step function BUILT_IN[which]; numba keeps it on disk, which it cannot for any `step`."""
    if which == 0:
        run(two_lists, m, rules, pages, start, stop, distances)
    elif which == 1:
        run(fixed_lists, m, rules, pages, start, stop, distances)
    elif which == 2:
        run(fifo, m, rules, pages, start, stop, distances)
    elif which == 3:
        run(lru, m, rules, pages, start, stop, distances)
    else:
        run(opt, m, rules, pages, start, stop, distances)


BUILT_IN = (two_lists, fixed_lists, fifo, lru, opt)
OPERATIONS = (
    *(push_newest, take_oldest, remove, _squeeze),
    *(activate, activate_refault, look_up_shadow, is_full, demote, reclaim, evict, leave_shadow, read_in),
    *(_place, _sift_up, _sift_down),
)


_DEFAULT = Choices()


@dataclass(frozen=True)
class Rules:
    """A rule set: how one access is handled.

    step : a function (m: State, rules: Choices, page: int) -> HIT, COLD or R, made of the operations in this module
    choices : what the step function looks up
    source : where the rules stand
    """

    name: str
    step: Step
    choices: Choices = _DEFAULT
    source: str = ""

    def __post_init__(self) -> None:
        """Refuse a choice out of range: reclaim would wait for ever for an inactive share above 100 percent."""
        if not callable(self.step) or not isinstance(self.choices, Choices):
            raise BadInput(
                f"rules {self.name!r}: expected a step function and Choices, got {self.step!r}, {self.choices!r}"
            )
        for choice, value in self.choices._asdict().items():
            most = {"inactive_share": 100, "active_pages": MOST_MEMORY}.get(choice, 1)
            if not is_integer(value) or not 0 <= value <= most:
                raise BadInput(f"rules {self.name!r}: {choice} is {value!r}, expected an integer from 0 to {most}")

    def but(self, name: str, **choices: int) -> Rules:
        """The same rules under another name, some choices made differently.

        Raises BadInput for an unknown choice, and for one that is out of range.
        """
        unknown = set(choices) - set(Choices._fields)
        if unknown:
            raise BadInput(f"rules: unknown choice {min(unknown)!r}, expected one of {', '.join(Choices._fields)}")
        return replace(self, name=name, choices=self.choices._replace(**choices))


MOST_MEMORY = 2**26  # pages, 256 GiB: twice as many slots just fit into a word


def is_integer(value: Any) -> bool:
    """Whether `value` is an int, or an integer of numpy; True and False are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


_ARTICLE = "the article of 2 May 2012; before it, mm/vmscan.c, inactive_file_is_low_global(), v3.3"
RULES: Mapping[str, Rules] = MappingProxyType(
    {
        rules.name: rules
        for rules in (
            Rules("balanced-2012", two_lists, Choices(), _ARTICLE),
            Rules(
                "proposal-2012",
                two_lists,
                Choices(refault_demotes=1),
                "the article of 2 May 2012, on the patches of 1 May",
            ),
            Rules("fifo", fifo, Choices(entry_after_tick=0), "a yardstick: the inactive list alone"),
            Rules("lru", lru, Choices(entry_after_tick=0), "a yardstick: least recently used"),
            Rules("opt", opt, Choices(entry_after_tick=0), "a yardstick: Belady, IBM Systems Journal 5(2), 1966"),
        )
    }
)


def rule_set(rules: str | Rules) -> Rules:
    """The rule set of that name; raises BadInput, which lists the known names."""
    if isinstance(rules, Rules):
        return rules
    if not isinstance(rules, str) or rules not in RULES:
        raise BadInput(f"unknown rules {rules!r}, expected one of {', '.join(RULES)}")
    return RULES[rules]


def check_memory(memory: Any, accesses: int | None = None) -> int:
    """`memory` as a number of pages; raises BadInput unless it is an integer from 1 to the number of accesses."""
    if not is_integer(memory):
        raise BadInput(f"memory is {memory!r}, expected a whole number of pages")
    pages = int(memory)
    if not 1 <= pages <= MOST_MEMORY:
        raise BadInput(f"memory is {pages} pages, expected 1 to {MOST_MEMORY}")
    if accesses is not None and pages > accesses:
        raise BadInput(
            f"memory is {pages} pages, larger than the whole trace of {accesses} accesses: nothing can be evicted"
        )
    return pages


def slots_for(memory: int) -> int:
    """Slots of a ring for a list of at most `memory` pages: a power of two, so that at least half of them are free."""
    return 1 << (2 * memory - 1).bit_length()


def check_lengths(m: State, rules: Rules) -> None:
    """Refuse to go on with more pages in memory than fit: a step function forgot to evict.  Raises BadInput."""
    held, fit = m.n[LENGTH + INACTIVE] + m.n[LENGTH + ACTIVE], m.memory + rules.choices.active_pages
    if held > fit:
        raise BadInput(
            f"rules {rules.name!r}: {held} pages are in a memory of {fit}, expected the step function to evict"
        )
