"""The multi-generational rules, against a second reading of them that shares no code."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kernelnotes import refault, traces
from kernelnotes.refault import generations, replays


class Generations:
    """Two generations as lists of names, newest first, and numbers in dicts."""

    def __init__(self, memory):
        self.memory, self.oldest, self.lists = memory, 0, ([], [])
        self.refs, self.workingset, self.shadow = {}, set(), {}
        self.now = {"again": [0] * 4, "left": [0] * 4}
        self.before = {"again": [0] * 4, "left": [0] * 4}
        self.faults = self.refaults = self.protected = 0

    def read(self, page):
        """Whether it was in memory."""
        if page in self.refs:
            if self.refs[page] == 4:
                self.workingset.add(page)
            self.refs[page] = min(4, self.refs[page] + 1)
            return True
        self.faults += 1
        target = self.lists[0]
        if page in self.shadow:
            self.refaults += 1
            generation, refs, workingset = self.shadow.pop(page)
            if generation == self.oldest:
                self.now["again"][self.tier(max(refs, 1), workingset)] += 1
                if workingset:
                    self.workingset.add(page)
                    target = None
        if len(self.refs) == self.memory:
            self.evict()
        (self.lists[0] if target is not None else self.lists[1]).insert(0, page)
        self.refs[page] = 1
        return False

    @staticmethod
    def tier(refs, workingset):
        return 3 if workingset else [0, 0, 1, 2, 2][refs]

    def last(self):
        again = [a + b for a, b in zip(self.now["again"], self.before["again"], strict=True)]
        left = [a + b for a, b in zip(self.now["left"], self.before["left"], strict=True)]
        for tier in (1, 2, 3):  # refaults of at least 64, and at 3/2 of tier 0's rate or more
            if again[tier] >= 64 and 2 * again[tier] * (left[0] + 64) > 3 * (again[0] + 1) * left[tier]:
                return tier - 1
        return 3

    def evict(self):
        last = self.last()
        while True:
            while not self.lists[0]:
                self.oldest += 1
                self.lists = (self.lists[1], self.lists[0])
                for what, numbers in self.before.items():
                    numbers[:] = [(a + b) // 2 for a, b in zip(numbers, self.now[what], strict=True)]
                    self.now[what] = [0] * 4
                last = self.last()
            page = self.lists[0].pop()
            refs, workingset = self.refs[page], page in self.workingset
            tier, saturated = self.tier(refs, workingset), refs == 4 and workingset
            if not saturated:
                self.now["left"][tier] += 1
            if tier <= last and not saturated:
                break
            self.protected += 1
            self.refs[page] = 0
            self.lists[1].insert(0, page)
        self.shadow[page] = (self.oldest, refs, workingset)
        del self.refs[page]
        self.workingset.discard(page)


def compared(pages, memory):
    told = refault.replay(pages, memory, "mglru-simplified")
    read = Generations(memory)
    assert told.hit.tolist() == [read.read(page) for page in pages]
    assert (told.faults, told.refaults, told.activations) == (read.faults, read.refaults, read.protected)
    return told


@given(st.lists(st.integers(0, 30), min_size=20, max_size=400), st.integers(1, 20))
@settings(max_examples=150, deadline=None)
def test_short_traces_are_as_in_a_second_reading(pages, memory):
    compared(pages, memory)


def test_long_traces_are_as_in_a_second_reading_and_tiers_are_protected():
    for trace in (
        traces.zipf(2000, 60_000, 1.0, seed=1),
        traces.mix(1000, 1000, 60_000, seed=2),
        traces.shift(500, 500, laps=6, passes=12),
        traces.zipf(300, 20_000, 0.7, seed=3) + traces.cyclic(400, 20),
    ):
        told = compared(trace.pages.tolist(), 200)
        if "zipf" in trace.name:
            assert told.activations > 20


def test_ages_are_right_across_the_wrap_of_the_generations():
    trace, rules = traces.uniform(14, 20_000, seed=1), refault.RULES["mglru-simplified"]
    expected = refault.replay(trace, 6, rules)
    choices, kernel = replays._kernel(trace, rules, None, ())
    m = replays._state(trace, 6, rules, kernel)
    m.n[generations.MIN_SEQ] = generations.AGES
    distances = np.empty(len(trace), dtype=np.int64)
    replays._runner(rules.step)(m, choices, trace.pages, 0, len(trace), distances)
    assert m.n[generations.MIN_SEQ] > generations.AGES + 1
    assert distances.tolist() == expected.distances.tolist()


def test_a_step_at_a_time_shows_generations_in_the_shadow_entries_and_nothing_unmapped():
    memory = refault.Memory(3, "mglru-simplified")
    for page in "AAABCD":
        memory.access(page)
    assert memory.unmapped == set()
    assert set(memory.shadow.values()) == {0}
    assert memory.rules.step is generations.mglru
