"""The rules of Linux itself: the step function `linux`, from what the May 2012 patches did to what 6.18 does.

What one version does and another does not is a choice (see `Choices`); with all of them made as 6.18 makes them this
predicts the misses of a running kernel to a page or so in a thousand, if it is told when that kernel brought its memory
statistics up to date.

An access is a read() of one page, or a touch of one that is mapped, each page once and by nobody else.  Left out:
pages that are mapped around a fault, readahead (it can be told of it), dirty pages and writeback, swap (so that
anonymous pages stay), more than one NUMA node, bucket_order (0 on machines below some TiB), other users of the cgroup.

Of mapped pages the model sees every touch.  A kernel sees those that the processor had to look up: x86 does not empty
its TLB when reclaim clears the bit (ptep_clear_flush_young()), so pages in steady use pass for idle now and then.

Source: v6.18, functions by name; for the older choices the commits that `Choices` names.
"""

from __future__ import annotations

from kernelnotes.refault.choices import Choices
from kernelnotes.refault.lists import (
    ACTIVATIONS,
    ACTIVE,
    ANON,
    DEACTIVATIONS,
    ENTRY,
    EVICTIONS,
    FAULTS,
    HIT,
    IN_BATCH,
    INACTIVE,
    LENGTH,
    NOW,
    ON_ACTIVE,
    OWN,
    REFAULT_ACTIVATIONS,
    REFERENCED,
    RESIDENT,
    SHADOW,
    SOFT_FAULTS,
    TIME_MASK,
    UNMAPPED,
    WORKINGSET_TIME,
    State,
    leave_shadow,
    look_up_shadow,
    push_newest,
    remove,
    take_oldest,
)

# n[...], from OWN up
(
    CHARGED,  # pages of the trace that are in memory
    NODES,  # xarray nodes, which are charged too
    ADDING,  # pages in the batch to be added to a list; and in the one to be activated
    ACTIVATING,
    SEEN,  # the lengths of both lists, and refault activations, as of the last flush: three places
    _,
    SEEN_ACTIVATIONS,
    SNAPSHOT,  # SEEN_ACTIVATIONS at the end of the last reclaim
    LAST_PAGE,  # of the last access, plus 1
    NEXT_FLUSH,  # cursors in `flushes` and `foreign`, and the access before which the next of either is due
    NEXT_FOREIGN,
    NEXT_EVENT,
    CREDITS,  # 2012: how many active pages are to be deactivated
    SHADOW_NODES,  # length of the list of nodes without a page in memory
    DEFERRED,  # work that the shrinker of those put off
    CLOCK,  # nanoseconds so far; those of a hit, of a miss, between two flushes, and of the next flush
    HIT_NS,
    MISS_NS,
    FLUSH_NS,
    TICK,
    NEXT_AHEAD,  # a cursor in `ahead`
    READ_AHEAD,  # pages that readahead brought in
) = range(OWN, OWN + 22)
LENGTHS = OWN + 22  # places of n

AGES = 1 << 62  # an access, or a time, that never comes
YOUNG = UNMAPPED  # a flag that these rules do not need: some page table has seen an access
KEPT = REFERENCED | YOUNG  # of a page that goes to another list
EVICT, KEEP, ACTIVATE = range(3)
BATCH = 31  # PAGEVEC_SIZE, include/linux/folio_batch.h
CLUSTER = 32  # SWAP_CLUSTER_MAX, include/linux/swap.h
PRIORITY = 12  # DEF_PRIORITY, include/linux/mmzone.h
RETRIES = 16  # MAX_RECLAIM_RETRIES, mm/internal.h
SHRINK_BATCH = 128  # mm/shrinker.c
NODE_BYTES, PAGE_BYTES = 592, 4096  # a struct xa_node of 576, the slab's free pointer, the pointer to its cgroup
NEVER = -1
CODE = 2  # traces.EXECUTABLE


def linux(m: State, rules: Choices, page: int) -> int:
    """One read() of a page.  Source: mm/filemap.c filemap_read(), filemap_add_folio()."""
    if m.n[NOW] >= m.n[NEXT_EVENT] or m.n[CLOCK] >= m.n[TICK]:
        let_others_act(m, rules)
    if len(m.kernel.way) > 0 and m.kernel.way[m.n[NOW]] > 0:
        return touch(m, rules, page, m.kernel.way[m.n[NOW]])
    m.n[NOW] += 1
    again = m.n[LAST_PAGE] == page + 1
    m.n[LAST_PAGE] = page + 1
    if m.word[page] & RESIDENT:
        if not (again and rules.repeats_collapse):
            mark_accessed(m, rules, page)
        m.n[CLOCK] += m.n[HIT_NS]
        return HIT
    m.n[CLOCK] += m.n[MISS_NS]
    distance = bring_in(m, rules, page)
    if rules.second_reference:
        mark_accessed(m, rules, page)
    return distance


def touch(m: State, rules: Choices, page: int, way: int) -> int:
    """An access to a mapped page: the processor sets a bit in the page table, and reclaim will see it.

    Only the first one is a fault: one that reads the page, or a soft one.  Source: mm/filemap.c filemap_fault().
    """
    m.n[NOW] += 1
    distance = HIT
    if m.word[page] & RESIDENT:
        m.n[CLOCK] += m.n[HIT_NS]
        m.n[SOFT_FAULTS] += m.kernel.mapping[page] == 0
    else:
        m.n[CLOCK] += m.n[MISS_NS]
        distance = bring_in(m, rules, page)
    m.kernel.mapping[page] = max(way, m.kernel.mapping[page])
    m.word[page] |= YOUNG
    return distance


def bring_in(m: State, rules: Choices, page: int) -> int:
    """Bring a page into memory; its refault distance.  Source: mm/filemap.c filemap_add_folio()."""
    if rules.refault_demotes:
        distance = look_up_shadow(m, m.word[page])
        if 0 < distance < m.n[LENGTH + ACTIVE]:
            m.n[CREDITS] += 1
        charge(m, rules)
    else:
        charge(m, rules)
        distance = look_up_shadow(m, charge_node(m, rules, page))
    flags = m.word[page] & ANON
    if rules.refault_activates and is_recent(m, rules, page, distance):
        flags |= ON_ACTIVE
        m.n[REFAULT_ACTIVATIONS] += 1
        m.n[WORKINGSET_TIME] += rules.activation_ticks
    lru_add(m, rules, page, flags)
    return distance


def is_recent(m: State, rules: Choices, page: int, distance: int) -> bool:
    """Whether a refault shows that the page is in the working set: R <= length of the active list, as far as is known.

    An eviction from outside left its entry on the clock of the whole machine, beside which every cgroup is small.
    Source: mm/workingset.c workingset_test_recent().
    """
    if distance < 0:
        return False
    if len(m.kernel.away) > 0 and m.kernel.away[page]:
        m.kernel.away[page] = 0
        return True
    if not rules.stale_statistics:
        flush_statistics(m)
    recent: bool = distance <= m.n[SEEN + ACTIVE]
    return recent


def mark_accessed(m: State, rules: Choices, page: int) -> None:
    """A reference: the first one sets a bit, the second one activates.  Source: mm/swap.c folio_mark_accessed()."""
    word = m.word[page]
    if rules.second_reference and not word & REFERENCED:
        m.word[page] = word | REFERENCED
    elif not word & (ON_ACTIVE | ANON):
        m.word[page] = word & ~REFERENCED
        m.n[WORKINGSET_TIME] += rules.activation_ticks
        if rules.refault_demotes and m.n[CREDITS] > 0:
            m.n[CREDITS] -= 1
        if word & IN_BATCH:  # on its way to a list: it is only told which one
            m.word[page] |= ON_ACTIVE
            m.n[ACTIVATIONS] += 1
        elif rules.batch == 1:
            activate_now(m, page)
        else:
            m.kernel.batch[BATCH + m.n[ACTIVATING]] = page
            m.n[ACTIVATING] += 1
            if m.n[ACTIVATING] == rules.batch:
                drain_activations(m)


# --- The folio batches: lists are changed a batch at a time.  Source: mm/swap.c. --------------------------------------


def lru_add(m: State, rules: Choices, page: int, flags: int) -> None:
    """Put a new page on a list, by ON_ACTIVE in `flags`; soon.  Source: folio_add_lru()."""
    if flags & ANON:  # without swap it stays: its lists do not matter
        m.word[page] = ANON | RESIDENT
    elif rules.batch == 1:
        push_newest(m, ACTIVE if flags & ON_ACTIVE else INACTIVE, page, 0)
    else:
        m.word[page] = flags | IN_BATCH | RESIDENT
        m.kernel.batch[m.n[ADDING]] = page
        m.n[ADDING] += 1
        if m.n[ADDING] == rules.batch:
            drain_additions(m)


def drain(m: State) -> None:
    """Empty both batches.  Source: lru_add_drain()."""
    if m.n[ADDING] > 0:
        drain_additions(m)
    if m.n[ACTIVATING] > 0:
        drain_activations(m)


def drain_additions(m: State) -> None:
    """Put the pages on their lists.  Source: lru_add()."""
    for i in range(m.n[ADDING]):
        page = m.kernel.batch[i]
        word = m.word[page]
        push_newest(m, ACTIVE if word & ON_ACTIVE else INACTIVE, page, word & KEPT)
    m.n[ADDING] = 0


def drain_activations(m: State) -> None:
    """Move the pages to the active list.  Source: lru_activate()."""
    for i in range(m.n[ACTIVATING]):
        page = m.kernel.batch[BATCH + i]
        if m.word[page] & RESIDENT and not m.word[page] & ON_ACTIVE:  # it may be in the batch twice
            activate_now(m, page)
    m.n[ACTIVATING] = 0


def activate_now(m: State, page: int) -> None:
    """Move an inactive page to the active list."""
    remove(m, INACTIVE, page)
    push_newest(m, ACTIVE, page, m.word[page] & KEPT)
    m.n[ACTIVATIONS] += 1


# --- The memory statistics, which decisions are made from.  Source: mm/memcontrol.c. ----------------------------------


def flush_statistics(m: State) -> None:
    """Bring what is seen up to date.  The kernel does so every two seconds, and for a reader of memory.stat."""
    m.n[SEEN + INACTIVE], m.n[SEEN + ACTIVE] = m.n[LENGTH + INACTIVE], m.n[LENGTH + ACTIVE]
    m.n[SEEN_ACTIVATIONS] = m.n[REFAULT_ACTIVATIONS]


def let_others_act(m: State, rules: Choices) -> None:
    """Do what others did before this access: flushes, evictions from outside, readahead."""
    k, now = m.kernel, m.n[NOW]
    while m.n[CLOCK] >= m.n[TICK]:
        m.n[TICK] += m.n[FLUSH_NS]
        flush_statistics(m)
    while m.n[NEXT_FLUSH] < len(k.flushes) and k.flushes[m.n[NEXT_FLUSH]] <= now:
        m.n[NEXT_FLUSH] += 1
        flush_statistics(m)
    half = len(k.foreign) // 2
    while m.n[NEXT_FOREIGN] < half and k.foreign[m.n[NEXT_FOREIGN]] <= now:
        evict_from_outside(m, k.foreign[half + m.n[NEXT_FOREIGN]])
        m.n[NEXT_FOREIGN] += 1
    while m.n[NEXT_AHEAD] < len(k.ahead) // 2 and k.ahead[m.n[NEXT_AHEAD]] <= now:
        read_ahead(m, rules, k.ahead[len(k.ahead) // 2 + m.n[NEXT_AHEAD]])
        m.n[NEXT_AHEAD] += 1
    due = AGES
    if m.n[NEXT_FLUSH] < len(k.flushes):
        due = k.flushes[m.n[NEXT_FLUSH]]
    if m.n[NEXT_FOREIGN] < half:
        due = min(due, k.foreign[m.n[NEXT_FOREIGN]])
    if m.n[NEXT_AHEAD] < len(k.ahead) // 2:
        due = min(due, k.ahead[m.n[NEXT_AHEAD]])
    m.n[NEXT_EVENT] = due


def read_ahead(m: State, rules: Choices, page: int) -> None:
    """Readahead brings the page in before anybody asked for it: no fault of the program's, and no reference."""
    if not m.word[page] & RESIDENT:
        faults = m.n[FAULTS]
        bring_in(m, rules, page)
        m.n[FAULTS] = faults
        m.n[READ_AHEAD] += 1


def evict_from_outside(m: State, page: int) -> None:
    """Somebody who is short of memory elsewhere evicts the page; one in a batch is held, and stays."""
    word = m.word[page]
    queued = False
    for i in range(m.n[ACTIVATING]):
        queued |= m.kernel.batch[BATCH + i] == page
    if word & RESIDENT and not word & (IN_BATCH | ANON) and not queued:
        remove(m, ACTIVE if word & ON_ACTIVE else INACTIVE, page)
        now = m.n[WORKINGSET_TIME] & TIME_MASK
        m.word[page] = now << ENTRY | SHADOW
        m.n[EVICTIONS] += 1
        m.kernel.away[page] = 1  # this one does not tick, so that the node may have been freed just now, or just after
        if len(m.kernel.node_of) > 0 and m.kernel.freed[m.kernel.node_of[page]] == now:
            m.kernel.away[page] = 2
        uncharge(m, page)


# --- The charge of pages, and of the xarray nodes that hold them. -----------------------------------------------------


def charge(m: State, rules: Choices) -> None:
    """Make room for one page, and take it.  Source: mm/memcontrol.c try_charge_memcg()."""
    m.n[CHARGED] += 1
    make_room(m, rules)


def make_room(m: State, rules: Choices) -> None:
    """Reclaim until what is charged fits; RETRIES times in vain, and a process would be killed."""
    retries = RETRIES
    while m.n[CHARGED] + pages_of_nodes(m) > m.memory:
        reclaimed = try_to_free_pages(m, rules) if rules.scan_by_priority else free_one(m, rules)
        retries -= reclaimed == 0
        if retries == 0:
            raise MemoryError("there is nothing left to reclaim")


def pages_of_nodes(m: State) -> int:
    """Pages that the xarray nodes take."""
    pages: int = -(-NODE_BYTES * m.n[NODES] // PAGE_BYTES)
    return pages


def charge_node(m: State, rules: Choices, page: int) -> int:
    """Put `page` into its node, which comes into being if need be; its word, 0 if its shadow entry went with the node.

    Source: lib/xarray.c xas_create(), mm/workingset.c workingset_update_node().
    """
    word: int = m.word[page]
    k = m.kernel
    if len(k.node_of) == 0:
        return word
    node = k.node_of[page]
    if k.entries[node] == 0:
        m.n[NODES] += 1 + k.parents[node]
        k.parents[node] = 0
        make_room(m, rules)
    if word & SHADOW and k.freed[node] != NEVER:
        since = (word >> ENTRY) - k.freed[node] & TIME_MASK
        if since > TIME_MASK // 2 or (since == 0 and len(k.away) > 0 and k.away[page] == 1):
            word &= ANON  # evicted before the node was freed
            if len(k.away) > 0:
                k.away[page] = 0
    if k.entries[node] > 0 and k.held[node] == 0:
        unlist(m, node)
    k.entries[node] += not word & SHADOW
    k.held[node] += 1
    return word


def uncharge(m: State, page: int) -> None:
    """The page has left memory."""
    m.n[CHARGED] -= 1
    k = m.kernel
    if len(k.mapping) > 0:
        k.mapping[page] = 0
    if len(k.node_of) > 0:
        node = k.node_of[page]
        k.held[node] -= 1
        if k.held[node] == 0:  # list it as the newest
            k.older[node], k.newer[node] = k.older[0], 0
            k.newer[k.older[0]] = node
            k.older[0] = node
            m.n[SHADOW_NODES] += 1


def unlist(m: State, node: int) -> None:
    """The node holds more than shadow entries, or is freed."""
    k = m.kernel
    k.newer[k.older[node]] = k.newer[node]
    k.older[k.newer[node]] = k.older[node]
    m.n[SHADOW_NODES] -= 1


def shrink_shadow_nodes(m: State, priority: int) -> None:
    """Free the oldest nodes with nothing but shadow entries, if there are more than an eighth of the pages in memory.

    Source: mm/workingset.c count_shadow_nodes(), shadow_lru_isolate(); mm/shrinker.c do_shrink_slab().
    """
    k = m.kernel
    freeable = m.n[SHADOW_NODES] - (m.n[SEEN + INACTIVE] + m.n[SEEN + ACTIVE] >> 3)
    if m.n[SHADOW_NODES] == 0 or freeable <= 0:
        return
    scan = min((m.n[DEFERRED] >> priority) + freeable // 2, 2 * freeable)
    scanned = 0
    while scan > 0 and (scan >= SHRINK_BATCH or scan >= freeable):
        part = min(SHRINK_BATCH, scan)
        for _ in range(min(part, m.n[SHADOW_NODES])):
            node = k.newer[0]
            unlist(m, node)
            k.entries[node] = 0
            k.freed[node] = m.n[WORKINGSET_TIME] & TIME_MASK
            m.n[NODES] -= 1
        scan -= part
        scanned += part
    m.n[DEFERRED] = min(max(m.n[DEFERRED] + freeable // 2 - scanned, 0), 2 * freeable)


# --- Reclaim.  Source: mm/vmscan.c. -----------------------------------------------------------------------------------


def try_to_free_pages(m: State, rules: Choices) -> int:
    """Reclaim at least CLUSTER pages, of ever larger parts of both lists; how many it were.

    Source: do_try_to_free_pages(), prepare_scan_control(), shrink_node().
    """
    if m.n[LENGTH + INACTIVE] + m.n[LENGTH + ACTIVE] == 0:
        drain(m)  # a cgroup of a few pages; the kernel might kill a process here
    may_deactivate = wants_deactivation(m, rules, CLUSTER)
    while True:
        reclaimed, priority = 0, PRIORITY
        while priority >= 0 and reclaimed < CLUSTER:
            reclaimed += shrink_lruvec(m, rules, priority, may_deactivate)
            if rules.shrink_nodes:
                shrink_shadow_nodes(m, priority)
            priority -= 1
        m.n[SNAPSHOT] = m.n[SEEN_ACTIVATIONS]
        if reclaimed > 0 or may_deactivate:
            return reclaimed
        may_deactivate = True  # there was nothing else to take


def wants_deactivation(m: State, rules: Choices, scanned: int) -> bool:
    """Whether active pages may be deactivated: the inactive list is low, or refaults show that the working set changes.

    Source: inactive_is_low(), prepare_scan_control().
    """
    if rules.refault_demotes and m.n[CREDITS] > 0:
        m.n[CREDITS] -= scanned
        return True
    if not rules.stale_statistics:
        flush_statistics(m)
    inactive, active = m.n[SEEN + INACTIVE], m.n[SEEN + ACTIVE]
    ratio = rules.ratio if rules.ratio > 0 else ratio_for(inactive + active)
    changes: bool = rules.refaults_deactivate == 1 and m.n[SEEN_ACTIVATIONS] != m.n[SNAPSHOT]
    low: bool = inactive * ratio < active
    return low or changes


def ratio_for(pages: int) -> int:
    """How many times as long as the inactive list the active one may be: the square root of 10 times the GiB."""
    tens = 10 * (pages >> 18)
    root = 1
    while (root + 1) * (root + 1) <= tens:
        root += 1
    return root


def shrink_lruvec(m: State, rules: Choices, priority: int, may_deactivate: bool) -> int:
    """Scan a part of both lists, CLUSTER pages at a time, the inactive one first; how many pages were reclaimed."""
    inactive, active = m.n[LENGTH + INACTIVE] >> priority, m.n[LENGTH + ACTIVE] >> priority
    reclaimed = 0
    while (inactive > 0 or active > 0) and reclaimed < CLUSTER:
        some = min(inactive, CLUSTER)
        inactive -= some
        reclaimed += shrink_inactive_list(m, rules, some)
        some = min(active, CLUSTER)
        active -= some
        if may_deactivate:
            shrink_active_list(m, rules, some)
    return reclaimed


def shrink_inactive_list(m: State, rules: Choices, scan: int) -> int:
    """Look at so many of the oldest inactive pages, and evict those that may go; how many it were.

    Source: shrink_folio_list(), move_folios_to_lru().
    """
    if scan == 0:
        return 0
    drain(m)
    evicted = 0
    for _ in range(min(scan, m.n[LENGTH + INACTIVE])):
        page = take_oldest(m, INACTIVE)
        verdict = check_references(m, page) if m.word[page] & YOUNG else EVICT
        if verdict == EVICT:
            leave_shadow(m, rules, page)
            uncharge(m, page)
            evicted += 1
        else:
            push_newest(m, ACTIVE if verdict == ACTIVATE else INACTIVE, page, m.word[page] & KEPT)
            if verdict == ACTIVATE:
                m.n[ACTIVATIONS] += 1
                m.n[WORKINGSET_TIME] += rules.reclaim_ticks
    return evicted


def check_references(m: State, page: int) -> int:
    """What becomes of a mapped page that was touched: a second trip, or the active list if it had one, or is code.

    A clean page that was not touched is evicted, whatever read() said of it.  Source: folio_check_references().
    """
    word = m.word[page]
    m.word[page] = word & ~YOUNG | REFERENCED
    if word & REFERENCED or m.kernel.mapping[page] == CODE:
        return ACTIVATE
    return KEEP


def shrink_active_list(m: State, rules: Choices, scan: int) -> None:
    """Deactivate so many of the oldest active pages; they keep REFERENCED, so that one reference brings them back.

    Code that was touched stays, as the newest.
    """
    if scan == 0:
        return
    drain(m)
    for _ in range(min(scan, m.n[LENGTH + ACTIVE])):
        page = take_oldest(m, ACTIVE)
        word = m.word[page]
        if word & YOUNG and m.kernel.mapping[page] == CODE:
            push_newest(m, ACTIVE, page, word & REFERENCED)
            m.n[WORKINGSET_TIME] += rules.reclaim_ticks
        else:
            push_newest(m, INACTIVE, page, word & REFERENCED)
            m.n[DEACTIVATIONS] += 1


def free_one(m: State, rules: Choices) -> int:
    """The same a page at a time: deactivate one if that is wanted, look at one, until one is evicted."""
    drain(m)
    for _ in range(3 * (m.n[LENGTH + INACTIVE] + m.n[LENGTH + ACTIVE])):  # each may have two more trips
        if m.n[LENGTH + ACTIVE] > 0 and (wants_deactivation(m, rules, 1) or m.n[LENGTH + INACTIVE] == 0):
            shrink_active_list(m, rules, 1)
        m.n[SNAPSHOT] = m.n[SEEN_ACTIVATIONS]
        if shrink_inactive_list(m, rules, 1) == 1:
            return 1
    return 0


OPERATIONS = (
    *(touch, bring_in, is_recent, mark_accessed, lru_add, drain, drain_additions, drain_activations, activate_now),
    *(flush_statistics, let_others_act, read_ahead, evict_from_outside, charge, make_room, pages_of_nodes),
    *(charge_node, uncharge, unlist, shrink_shadow_nodes, try_to_free_pages, wants_deactivation, ratio_for),
    *(shrink_lruvec, shrink_inactive_list, check_references, shrink_active_list, free_one),
)
# Called for many accesses at once, or in few traces: not worth a copy wherever they are called.
SELDOM = (
    *(let_others_act, read_ahead, evict_from_outside, drain_additions, drain_activations, try_to_free_pages),
    *(touch, check_references),
)
