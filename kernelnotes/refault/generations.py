"""The multi-generational LRU of Linux in its essentials, for pages that are read through file descriptors; simplified.

Pages belong to generations, numbered by age; reclaim takes the oldest one.  A read moves nothing: it counts, and the
pages of a generation fall into four tiers by the logarithm of their count.  When a page is about to be evicted and its
tier comes back from disk relatively more often than tier 0 does, it is protected: it moves to the next generation.  A
shadow entry holds the generation and the count; so there is a memory of evictions, but no refault distance.

Simplified: four generations always, and a page at a time.  Left out: what needs page tables, which is most of it (the
walks that find young pages, the Bloom filter, promotion to the youngest generation), so that with read() pages are
in the two oldest generations only; anonymous pages, which are taken for pages of files; dirty pages; the balance with
swap; min_ttl_ms; the list of cgroups by age.

Source: Linux 6.18, mm/vmscan.c, get_tier_idx(), positive_ctrl_err(), sort_folio(), reset_ctrl_pos(); mm/swap.c,
lru_gen_inc_refs(); mm/workingset.c, lru_gen_eviction(), lru_gen_refault(); include/linux/mm_inline.h,
lru_gen_folio_seq(); Documentation/mm/multigen_lru.rst.
"""

from __future__ import annotations

from kernelnotes.refault.choices import Choices
from kernelnotes.refault.lists import (
    ACTIVATIONS,
    COLD,
    ENTRY,
    EVICTIONS,
    FAULTS,
    HIT,
    LENGTH,
    OWN,
    REFAULTS,
    RESIDENT,
    SHADOW,
    State,
    is_full,
    push_newest,
    take_oldest,
)

TIERS = 4  # MAX_NR_TIERS, include/linux/mmzone.h
FEW = 64  # MIN_LRU_BATCH: a tier with fewer refaults is not protected
# n[...]: the number of the oldest generation; then per tier what has happened to it since it became the oldest, and
# the averages over the ones before
MIN_SEQ, REFAULTED, TOTAL, AVERAGE_REFAULTED, AVERAGE_TOTAL = OWN, OWN + 1, OWN + 5, OWN + 9, OWN + 13
REFS, ALL_REFS, WORKINGSET = 4, 28, 32  # flags in the word of a page: a count of 0 to 4, and PG_workingset
MOST = 4  # of the count: PG_referenced and two bits more
GENERATION = ENTRY + 3  # where its number begins in a shadow entry; below it two bits of the count and WORKINGSET
AGES = (1 << 25) - 1


def mglru(m: State, rules: Choices, page: int) -> int:
    """Generations and tiers.  Of a refault this returns how many generations ago its page left memory."""
    word = m.word[page]
    if word & RESIDENT:
        m.word[page] = referenced(word)
        return HIT
    m.n[FAULTS] += 1
    age, workingset = COLD, 0
    if word & SHADOW:
        age, workingset = recall(m, word >> ENTRY)
    if is_full(m):
        evict_of_oldest(m)
    which = m.n[MIN_SEQ] & 1  # the ring of the oldest generation; the next one has the other
    push_newest(m, 1 - which if workingset else which, page, workingset | REFS)
    return age


def referenced(word: int) -> int:
    """Count a read: up to MOST, then the page is known to be of the working set."""
    if word & ALL_REFS < MOST * REFS:
        return word + REFS
    return word | WORKINGSET


def tier_of(word: int) -> int:
    """By the number of reads: up to 1, 2, more; the last one is that of the working set."""
    refs = (word & ALL_REFS) // REFS
    if word & WORKINGSET:
        return TIERS - 1
    return (refs > 1) + (refs > 2)


def recall(m: State, entry: int) -> tuple[int, int]:
    """Count a refault; how many generations ago the page was evicted, and WORKINGSET if it was of the working set."""
    m.n[REFAULTS] += 1
    age = m.n[MIN_SEQ] - (entry >> 3) & AGES
    if age > 0:
        return age, 0
    workingset = entry & 1
    refs = (entry >> 1 & 3) + 1
    m.n[REFAULTED + tier_of(workingset * WORKINGSET | refs * REFS)] += 1
    return age, workingset * WORKINGSET


def evict_of_oldest(m: State) -> None:
    """Evict the oldest page of the oldest generation that is not protected; what is protected moves to the next one."""
    last = last_tier(m)
    while True:
        while m.n[LENGTH + (m.n[MIN_SEQ] & 1)] == 0:
            begin_next_generation(m)
            last = last_tier(m)
        which = m.n[MIN_SEQ] & 1
        page = take_oldest(m, which)
        word = m.word[page]
        tier, saturated = tier_of(word), word & ALL_REFS == MOST * REFS and word & WORKINGSET
        if tier <= last and not saturated:
            break
        if not saturated:
            m.n[TOTAL + tier] += 1
        push_newest(m, 1 - which, page, word & WORKINGSET)
        m.n[ACTIVATIONS] += 1
    m.n[TOTAL + tier] += 1
    refs = max((word & ALL_REFS) // REFS - 1, 0)
    entry = (m.n[MIN_SEQ] & AGES) << 3 | refs << 1 | (word & WORKINGSET) // WORKINGSET
    m.word[page] = entry << ENTRY | SHADOW
    m.n[EVICTIONS] += 1


def last_tier(m: State) -> int:
    """The last tier that is evicted: the ones above come back relatively more often than tier 0, by half and more."""
    refaulted, total = m.n[REFAULTED] + m.n[AVERAGE_REFAULTED], m.n[TOTAL] + m.n[AVERAGE_TOTAL]
    tier = 1
    while tier < TIERS:
        again = m.n[REFAULTED + tier] + m.n[AVERAGE_REFAULTED + tier]
        of = m.n[TOTAL + tier] + m.n[AVERAGE_TOTAL + tier]
        if again >= FEW and again * (total + FEW) * 2 > (refaulted + 1) * of * 3:
            break
        tier += 1
    return tier - 1


def begin_next_generation(m: State) -> None:
    """The oldest generation is empty: the next one is the oldest, and a half of what was learnt is kept."""
    m.n[MIN_SEQ] += 1
    for tier in range(TIERS):
        m.n[AVERAGE_REFAULTED + tier] = (m.n[AVERAGE_REFAULTED + tier] + m.n[REFAULTED + tier]) // 2
        m.n[AVERAGE_TOTAL + tier] = (m.n[AVERAGE_TOTAL + tier] + m.n[TOTAL + tier]) // 2
        m.n[REFAULTED + tier] = m.n[TOTAL + tier] = 0


OPERATIONS = (referenced, tier_of, recall, evict_of_oldest, last_tier, begin_next_generation)
SELDOM = (begin_next_generation,)
