"""The rules of Linux 6.18 read a second time: lists and sets of page numbers, slow and plain.

The oracle of test_kernel.py.  It shares no code with kernelnotes/refault.  Lists are oldest page first.
"""

from collections import deque

BATCH, CLUSTER = 31, 32


class ReferenceKernel:
    """A cgroup of `memory` pages; `flushes`, `foreign` and `ahead` as in refault.replay."""

    def __init__(self, memory, flushes=(), foreign=(), ahead=(), charged=True):
        self.memory, self.charged = memory, charged
        self.flushes, self.foreign = deque(sorted(flushes)), deque(sorted(foreign, key=lambda pair: pair[0]))
        self.ahead, self.read_ahead = deque(sorted(ahead, key=lambda pair: pair[0])), 0
        self.inactive, self.active = {}, {}  # dicts keep their order, and lose a page from the middle in no time
        self.adding, self.activating = [], []
        self.is_active, self.referenced = set(), set()
        self.shadow, self.away = {}, set()
        self.mapping, self.young = {}, set()  # of mapped pages: as what; those that were touched
        self.age = self.now = 0
        self.seen_inactive = self.seen_active = self.seen_refaults = self.snapshot = self.deferred = 0
        self.last = None
        self.counts = dict.fromkeys(("faults", "refaults", "activations", "refault_activations", "deactivations"), 0)
        self.counts |= {"evictions": 0, "soft_faults": 0}
        self.pages_of, self.above, self.height, self.idle = {}, set(), 0, []  # leaf nodes; others; idle: leaves

    def access(self, page, way=0):
        """-1 for a hit, -2 for a page never seen, or the refault distance; `way` as in traces: read, mapped, code."""
        while self.flushes and self.flushes[0] <= self.now:
            self.flushes.popleft()
            self.flush()
        while self.foreign and self.foreign[0][0] <= self.now:
            self._foreign(self.foreign.popleft()[1])
        while self.ahead and self.ahead[0][0] <= self.now:
            _, early = self.ahead.popleft()
            if not self._resident(early):
                self.read_ahead += 1
                self._bring_in(early)
        self.now += 1
        if way:
            return self._touch(page, way)
        again, self.last = page == self.last, page
        if self._resident(page):
            if not again:
                self._mark(page)
            return -1
        self.counts["faults"] += 1
        distance = self._bring_in(page)
        self._mark(page)
        return distance

    def _touch(self, page, way):
        distance = -1
        if self._resident(page):
            self.counts["soft_faults"] += page not in self.mapping
        else:
            self.counts["faults"] += 1
            distance = self._bring_in(page)
        self.mapping[page] = max(way, self.mapping.get(page, 0))
        self.young.add(page)
        return distance

    def _bring_in(self, page):
        self._make_room(1)
        self._enter_node(page)
        distance = -2
        if page in self.shadow:
            self.counts["refaults"] += 1
            distance = self.age - self.shadow.pop(page)
            if page in self.away or distance <= self.seen_active:
                self.away.discard(page)
                self.is_active.add(page)
                self.counts["refault_activations"] += 1
                self.age += 1
        self.adding.append(page)
        if len(self.adding) == BATCH:
            self._drain_adding()
        return distance

    def flush(self):
        """The statistics are brought up to date."""
        self.seen_inactive, self.seen_active = len(self.inactive), len(self.active)
        self.seen_refaults = self.counts["refault_activations"]

    def _resident(self, page):
        return page in self.inactive or page in self.active or page in self.adding

    def _mark(self, page):
        if page not in self.referenced:
            self.referenced.add(page)
        elif page not in self.is_active:
            self.referenced.discard(page)
            self.age += 1
            if page in self.adding:
                self.is_active.add(page)
                self.counts["activations"] += 1
            else:
                self.activating.append(page)
                if len(self.activating) == BATCH:
                    self._drain_activating()

    def _drain_adding(self):
        for page in self.adding:
            (self.active if page in self.is_active else self.inactive)[page] = True
        self.adding.clear()

    def _drain_activating(self):
        for page in self.activating:
            if page in self.inactive:
                del self.inactive[page]
                self.active[page] = True
                self.is_active.add(page)
                self.counts["activations"] += 1
        self.activating.clear()

    def _drain(self):
        self._drain_adding()
        self._drain_activating()

    # ---- memory

    def _charge_of_nodes(self):
        return -(-592 * (len(self.pages_of) + len(self.above)) // 4096) if self.charged else 0

    def _pages(self):
        return len(self.inactive) + len(self.active) + len(self.adding)

    def _make_room(self, more):
        for _ in range(16):
            while (
                len(self.inactive) + len(self.active) + len(self.adding) + more + self._charge_of_nodes() > self.memory
            ):
                if not self._reclaim():
                    break
            else:
                return
        raise MemoryError

    def _enter_node(self, page):
        if not self.charged:
            return
        leaf = page >> 6
        if leaf not in self.pages_of:
            while leaf >> (6 * self.height):
                self.height += 1
                if self.height > 0 and (self.pages_of or self.above):
                    self.above.add((self.height, 0))
            self.above |= {(level, leaf >> 6 * level) for level in range(1, self.height + 1)}
            self.pages_of[leaf] = set()
            self._make_room(1)
        if not self.pages_of[leaf] and leaf in self.idle:
            self.idle.remove(leaf)
        self.pages_of[leaf].add(page)

    def _leave(self, page):
        (self.active if page in self.is_active else self.inactive).pop(page)
        self.is_active.discard(page)
        self.referenced.discard(page)
        self.mapping.pop(page, None)
        self.young.discard(page)
        self.shadow[page] = self.age
        self.counts["evictions"] += 1
        if self.charged:
            self.pages_of[page >> 6].discard(page)
            if not self.pages_of[page >> 6]:
                self.idle.append(page >> 6)

    def _foreign(self, page):
        if self._resident(page) and page not in self.adding and page not in self.activating:
            self._leave(page)
            self.away.add(page)

    def _shrink_nodes(self, priority):
        freeable = len(self.idle) - (self.seen_inactive + self.seen_active) // 8
        if not self.idle or freeable <= 0:
            return
        scan, scanned = min((self.deferred >> priority) + freeable // 2, 2 * freeable), 0
        while scan and (scan >= 128 or scan >= freeable):
            part = min(128, scan)
            for leaf in self.idle[:part]:
                del self.pages_of[leaf]
                for page in [page for page in self.shadow if page >> 6 == leaf]:
                    del self.shadow[page]
                    self.away.discard(page)
            del self.idle[:part]
            scan, scanned = scan - part, scanned + part
        self.deferred = min(max(self.deferred + freeable // 2 - scanned, 0), 2 * freeable)

    def _reclaim(self):
        if not self.inactive and not self.active:
            self._drain()
        tens = 10 * ((self.seen_inactive + self.seen_active) >> 18)
        low = self.seen_inactive * max(1, int(tens**0.5)) < self.seen_active
        for forced in (False, True):
            total, deactivate = 0, forced or low or self.seen_refaults != self.snapshot
            for priority in range(12, -1, -1):
                total += self._shrink_lists(priority, deactivate)
                if self.charged:
                    self._shrink_nodes(priority)
                if total >= CLUSTER:
                    break
            self.snapshot = self.seen_refaults
            if total or deactivate:
                return total
        return 0

    def _shrink_lists(self, priority, deactivate):
        parts = [len(self.inactive) >> priority, len(self.active) >> priority]
        freed = 0
        while any(parts) and freed < CLUSTER:
            now = [min(part, CLUSTER) for part in parts]
            parts = [part - n for part, n in zip(parts, now, strict=True)]
            if now[0]:
                self._drain()
                for page in list(self.inactive)[: now[0]]:
                    if page in self.young:
                        self._spare(page)
                        continue
                    self._leave(page)
                    self.age += 1
                    freed += 1
            if now[1] and deactivate:
                self._drain()
                for page in list(self.active)[: now[1]]:
                    del self.active[page]
                    if page in self.young and self.mapping[page] == 2:
                        self.young.discard(page)
                        self.active[page] = True
                        self.age += 1
                        continue
                    self.young.discard(page)
                    self.is_active.discard(page)
                    self.inactive[page] = True
                    self.counts["deactivations"] += 1
        return freed

    def _spare(self, page):
        # Touched through a mapping: another trip, but the active list for code, and at the second time.
        self.young.discard(page)
        del self.inactive[page]
        if page in self.referenced or self.mapping[page] == 2:
            self.active[page] = True
            self.is_active.add(page)
            self.counts["activations"] += 1
            self.age += 1
        else:
            self.inactive[page] = True
        self.referenced.add(page)
