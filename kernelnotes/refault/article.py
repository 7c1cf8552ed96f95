"""The rules of the article.  A step function handles one access; it returns HIT, COLD or the refault distance R."""

from __future__ import annotations

from kernelnotes.refault.choices import Choices
from kernelnotes.refault.lists import (
    ACTIVATIONS,
    ACTIVE,
    ANON,
    DEACTIVATIONS,
    HIT,
    INACTIVE,
    LENGTH,
    ON_ACTIVE,
    REFAULT_ACTIVATIONS,
    RESIDENT,
    SOFT_FAULTS,
    UNMAPPED,
    WORKINGSET_TIME,
    State,
    evict,
    is_full,
    look_up_shadow,
    push_newest,
    remove,
    take_oldest,
)


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


OPERATIONS = (activate, activate_refault, demote, reclaim)
