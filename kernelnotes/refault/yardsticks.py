"""Rules to compare with: step functions of the same signature."""

from __future__ import annotations

from kernelnotes.refault.choices import Choices
from kernelnotes.refault.lists import (
    ACTIVATIONS,
    ACTIVE,
    ANON,
    EMPTY,
    EVICTIONS,
    HIT,
    IN_BATCH,
    INACTIVE,
    LENGTH,
    NEWEST,
    NOW,
    OLDEST,
    ON_ACTIVE,
    OWN,
    REFERENCED,
    RESIDENT,
    SLOT,
    State,
    evict,
    is_full,
    leave_shadow,
    look_up_shadow,
    oldest,
    push_newest,
    remove,
    take_oldest,
)


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


def clock(m: State, rules: Choices, page: int) -> int:
    """A FIFO list whose oldest page stays, as the newest, if it was referenced since it came there: a second chance."""
    word = m.word[page]
    if word & RESIDENT:
        m.word[page] = word | REFERENCED
        return HIT
    distance = look_up_shadow(m, word)
    if is_full(m):
        while m.word[oldest(m, INACTIVE)] & REFERENCED:
            kept = take_oldest(m, INACTIVE)
            push_newest(m, INACTIVE, kept, m.word[kept] & ANON)
        evict(m, rules)
    push_newest(m, INACTIVE, page, word & ANON)
    return distance


HAND = OWN  # n[...] for `sieve`: the page under the hand plus 1, or 0 at the oldest end


def sieve(m: State, rules: Choices, page: int) -> int:
    """A hand goes from the oldest page to the newest and evicts what was not referenced since it last came by.

    Unlike in `clock` the pages stay where they are, so that new ones are met before old ones that were kept.
    """
    word = m.word[page]
    if word & RESIDENT:
        m.word[page] = word | REFERENCED
        return HIT
    distance = look_up_shadow(m, word)
    if is_full(m):
        _sieve_out(m, rules)
    push_newest(m, INACTIVE, page, word & ANON)
    return distance


def _sieve_out(m: State, rules: Choices) -> None:
    newest, hand = m.n[NEWEST + INACTIVE], m.n[HAND] - 1
    slot = newest
    if hand >= 0:
        slot = m.n[OLDEST + INACTIVE] + ((m.word[hand] >> SLOT) - m.n[OLDEST + INACTIVE] & m.mask)
    while True:
        if slot == newest:
            oldest(m, INACTIVE)
            slot = m.n[OLDEST + INACTIVE]
        page = m.ring[slot & m.mask]
        if page != EMPTY:
            if not m.word[page] & REFERENCED:
                break
            m.word[page] &= ~REFERENCED
        slot += 1
    remove(m, INACTIVE, page)
    leave_shadow(m, rules, page)
    while slot < newest and m.ring[slot & m.mask] == EMPTY:
        slot += 1
    m.n[HAND] = m.ring[slot & m.mask] + 1 if slot < newest else 0


# --- Rules that remember some of the pages that have left memory: ghosts. ---------------------------------------------


def is_ghost(m: State, which: int, page: int) -> bool:
    """Whether `page` is remembered on ghost list `which` (INACTIVE or ACTIVE)."""
    word = m.ghosts.word[page]
    there: bool = word & RESIDENT and (word & ON_ACTIVE) == which * ON_ACTIVE
    return there


def forget(m: State, which: int, page: int) -> None:
    """Take `page` off ghost list `which`."""
    remove(m.ghosts, which, page)
    m.ghosts.word[page] = 0


def forget_oldest(m: State, which: int) -> None:
    """Take the page at the oldest end off ghost list `which`."""
    m.ghosts.word[take_oldest(m.ghosts, which)] = 0


def bury(m: State, rules: Choices) -> None:
    """Evict the oldest inactive page, and remember it: it takes the place of the oldest ghost, if there are enough."""
    page = take_oldest(m, INACTIVE)
    leave_shadow(m, rules, page)
    most = rules.ghosts * m.memory // 100
    if m.ghosts.n[LENGTH + INACTIVE] == most > 0:
        forget_oldest(m, INACTIVE)
    if most > 0:
        push_newest(m.ghosts, INACTIVE, page, 0)


def two_queues(m: State, rules: Choices, page: int) -> int:
    """2Q: new pages wait in a FIFO list (Ain); one that comes back while remembered (Aout) enters an LRU list (Am).

    Ain is the inactive list, Am the active one, Aout the ghosts of Ain.
    """
    word = m.word[page]
    if word & RESIDENT:
        if word & ON_ACTIVE:
            remove(m, ACTIVE, page)
            push_newest(m, ACTIVE, page, word & ANON)
        return HIT
    distance = look_up_shadow(m, word)
    known = is_ghost(m, INACTIVE, page)
    if known:
        forget(m, INACTIVE, page)
    if is_full(m):
        if m.n[LENGTH + INACTIVE] > rules.inactive_share * m.memory // 100 or m.n[LENGTH + ACTIVE] == 0:
            bury(m, rules)
        else:
            leave_shadow(m, rules, take_oldest(m, ACTIVE))
    m.n[ACTIVATIONS] += known
    push_newest(m, ACTIVE if known else INACTIVE, page, word & ANON)
    return distance


def arc(m: State, rules: Choices, page: int) -> int:
    """ARC: an LRU list of pages seen once (T1) and one of pages seen again (T2); ghosts of either shift the balance.

    T1 is the inactive list, T2 the active one, B1 and B2 their ghosts.
    """
    word = m.word[page]
    if word & RESIDENT:
        which = ACTIVE if word & ON_ACTIVE else INACTIVE
        m.n[ACTIVATIONS] += which == INACTIVE
        remove(m, which, page)
        push_newest(m, ACTIVE, page, word & ANON)
        return HIT
    distance = look_up_shadow(m, word)
    b1, b2 = m.ghosts.n[LENGTH + INACTIVE], m.ghosts.n[LENGTH + ACTIVE]
    if is_ghost(m, INACTIVE, page):
        m.target[0] = min(m.target[0] + max(1.0, b2 / b1), float(m.memory))
        _replace(m, rules, False)
        forget(m, INACTIVE, page)
        push_newest(m, ACTIVE, page, word & ANON)
    elif is_ghost(m, ACTIVE, page):
        m.target[0] = max(m.target[0] - max(1.0, b1 / b2), 0.0)
        _replace(m, rules, True)
        forget(m, ACTIVE, page)
        push_newest(m, ACTIVE, page, word & ANON)
    else:
        if is_full(m):
            if m.n[LENGTH + INACTIVE] == m.memory:
                evict(m, rules)
            else:
                if m.n[LENGTH + INACTIVE] + b1 == m.memory:
                    forget_oldest(m, INACTIVE)
                elif m.memory + b1 + b2 == 2 * m.memory:
                    forget_oldest(m, ACTIVE)
                _replace(m, rules, False)
        push_newest(m, INACTIVE, page, word & ANON)
    return distance


def _replace(m: State, rules: Choices, known_from_b2: bool) -> None:
    t1 = m.n[LENGTH + INACTIVE]
    from_t1 = t1 > 0 and (t1 > m.target[0] or (known_from_b2 and t1 == m.target[0]))
    which = INACTIVE if from_t1 or m.n[LENGTH + ACTIVE] == 0 else ACTIVE
    page = take_oldest(m, which)
    leave_shadow(m, rules, page)
    push_newest(m.ghosts, which, page, 0)


USES, ALL_USES = REFERENCED, REFERENCED | IN_BATCH  # a counter of two bits, 0 to 3


def s3fifo(m: State, rules: Choices, page: int) -> int:
    """S3-FIFO: a small FIFO list of new pages, a main one for those used twice there or known as its ghosts.

    The oldest page of the main list stays, as the newest, as often as it was used, up to three times.  Small is the
    inactive list, main the active one.
    """
    word = m.word[page]
    if word & RESIDENT:
        if word & ALL_USES != ALL_USES:
            m.word[page] = word + USES
        return HIT
    distance = look_up_shadow(m, word)
    small = max(1, rules.inactive_share * m.memory // 100)
    known = is_ghost(m, INACTIVE, page)
    if known:
        forget(m, INACTIVE, page)
    while is_full(m):
        if m.n[LENGTH + ACTIVE] > m.memory - small or m.n[LENGTH + INACTIVE] == 0:
            _evict_main(m, rules)
        else:
            _evict_small(m, rules)
    filling = m.n[EVICTIONS] == 0 and m.n[LENGTH + INACTIVE] >= small
    push_newest(m, ACTIVE if known or filling else INACTIVE, page, word & ANON)
    return distance


def _evict_small(m: State, rules: Choices) -> None:
    while m.n[LENGTH + INACTIVE] > 0 and m.word[oldest(m, INACTIVE)] & ALL_USES >= 2 * USES:
        page = take_oldest(m, INACTIVE)
        m.n[ACTIVATIONS] += 1
        push_newest(m, ACTIVE, page, m.word[page] & ANON)
    if m.n[LENGTH + INACTIVE] > 0:
        bury(m, rules)


def _evict_main(m: State, rules: Choices) -> None:
    while m.word[oldest(m, ACTIVE)] & ALL_USES:
        page = take_oldest(m, ACTIVE)
        push_newest(m, ACTIVE, page, (m.word[page] & (ALL_USES | ANON)) - USES)
    leave_shadow(m, rules, take_oldest(m, ACTIVE))


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


OPERATIONS = (
    *(read_in, _sieve_out, is_ghost, forget, forget_oldest, bury, _replace, _evict_small, _evict_main),
    *(_place, _sift_up, _sift_down),
)
