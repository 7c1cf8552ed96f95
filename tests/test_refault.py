"""The refault model against a second reading of its rules, against brute force, closed forms and another package."""

import concurrent.futures
import contextlib
import hashlib
import json
import random
import re
import subprocess
import sys

import libcachesim
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reference import Reference, fewest_faults

from kernelnotes import refault, traces
from kernelnotes.errors import BadInput
from kernelnotes.refault import (
    ACTIVE,
    ANON,
    COLD,
    HIT,
    INACTIVE,
    LENGTH,
    ON_ACTIVE,
    RESIDENT,
    RULES,
    activate,
    article,
    evict,
    lists,
    look_up_shadow,
    push_newest,
    reclaim,
    remove,
    replays,
    take_oldest,
)
from kernelnotes.refault.claims import fixed_lists
from kernelnotes.traces import Trace

TWO_LISTS = ("balanced-2012", "proposal-2012")
LISTS = (*TWO_LISTS, "fifo", "lru")
LINUX = ("proposal-2012-patch", "linux-3.15", "linux-6.18")  # more of them in test_kernel.py
# A memory of a few pages is full of nothing but xarray nodes.
SMALL = {name: rules.without("charged nodes") if name == "linux-6.18" else rules for name, rules in RULES.items()}
ANY = (*SMALL.values(), fixed_lists(), fixed_lists(0), fixed_lists(2))


def some_anonymous(data, pages, rules):
    """A set of pages that are anonymous memory; none under rules that never evict them."""
    return set() if rules.name.split()[0] in LINUX else data.draw(st.sets(st.sampled_from(pages)))


by_name = pytest.mark.parametrize("rules", ANY, ids=lambda rules: rules.name)


def a_busy_program(pages, length, seed):
    """Some pages more often than others, so that there are activations, refaults and demotions in any memory."""
    return random.Random(seed).choices(range(pages), [1 / (1 + page) for page in range(pages)], k=length)


# Lists shrink to small examples, but are mostly short; the others are as long as they say.
page_lists = st.integers(2, 12).flatmap(
    lambda pages: (
        st.lists(st.integers(0, pages - 1), min_size=1, max_size=60)
        | st.builds(a_busy_program, st.just(pages), st.integers(50, 200), st.integers(0, 2**32))
    )
)
memories = st.integers(1, 10)
shares = st.sampled_from((0, 1, 20, 33, 50, 67, 99, 100)) | st.integers(0, 100)


@contextlib.contextmanager
def interpreted():
    """Replays as they are where numba is not installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replays, "have_numba", lambda: False)
        patch.setattr(replays, "_runner", replays._runner.__wrapped__)
        yield


@pytest.fixture(params=["compiled", "interpreted"])
def both_ways(request):
    with interpreted() if request.param == "interpreted" else contextlib.nullcontext():
        yield


def fitting(pages, memory):
    return min(memory, len(pages))


# --- The article's rules, read a second time. -------------------------------------------------------------------------


def differently(rules, inactive_share, **choices):
    return RULES[rules].but(f"{rules}, {inactive_share} %", inactive_share=inactive_share, **choices)


clocks = st.fixed_dictionaries({"entry_after_tick": st.integers(0, 1), "activation_ticks": st.integers(0, 1)})


@pytest.mark.parametrize("rules", TWO_LISTS)
@settings(deadline=None, max_examples=50)
@given(pages=page_lists, memory=memories, share=shares, clock=clocks)
def test_other_clocks_tick_as_they_say(rules, pages, memory, share, clock):
    told = Reference(
        memory, rules, (), share, entry_after_tick=clock["entry_after_tick"], ticks=clock["activation_ticks"]
    )
    ours = refault.Memory(memory, differently(rules, share, **clock))
    for page in pages:
        assert fields(ours.access(page)) == told.access(page)
        assert lists_of(ours) == lists_of(told)


def lists_of(memory):
    return memory.active, memory.inactive, memory.unmapped, memory.shadow, memory.workingset_time, memory.counts


def fields(event):
    return event.page, event.distance, event.activated, event.demoted, event.evicted, event.soft_fault


@pytest.mark.parametrize("rules", LISTS)
@settings(deadline=None, max_examples=50)
@given(pages=page_lists, memory=memories, share=shares, data=st.data())
def test_memory_does_what_the_article_says(rules, pages, memory, share, data):
    anon = data.draw(st.just(set()) | st.sets(st.integers(0, 11)))
    told = Reference(memory, rules, anon, share)
    ours = refault.Memory(memory, differently(rules, share), anon)
    for page in pages:
        assert fields(ours.access(page)) == told.access(page)
        assert lists_of(ours) == lists_of(told)


@pytest.mark.parametrize("rules", LISTS)
@settings(deadline=None, max_examples=50)
@given(pages=page_lists, memory=memories, share=shares, data=st.data())
def test_replay_does_what_the_article_says(rules, pages, memory, share, data):
    anon = data.draw(st.just(set()) | st.sets(st.sampled_from(pages)))
    told = Reference(fitting(pages, memory), rules, anon, share)
    rows = []
    for i, page in enumerate(pages):
        distance = told.access(page).distance
        lengths = {"inactive": len(told.inactive), "active": len(told.active)}
        rows.append(
            {"distance": distance, "access": i + 1, "workingset_time": told.workingset_time} | lengths | told.counts
        )
    ours = refault.replay(
        Trace.of(pages, anon=anon), told.memory, differently(rules, share), points=data.draw(st.integers(1, 300))
    )
    assert ours.distances.tolist() == [row.pop("distance") for row in rows]
    assert ours.summary().items() >= told.counts.items()
    assert ours.series.to_dict("records") == [rows[access - 1] for access in ours.series["access"]]
    assert ours.series["access"].iloc[-1] == len(pages)


@pytest.mark.parametrize("active_pages", [0, 1, 3, 1000])
@settings(deadline=None, max_examples=50)
@given(pages=page_lists, memory=memories, after=st.integers(0, 1))
def test_lists_of_fixed_length_keep_to_it(active_pages, pages, memory, after):
    told = Reference(memory, "fixed lists", entry_after_tick=after, active_pages=active_pages)
    rules = fixed_lists(active_pages).but("x", entry_after_tick=after)
    ours = refault.Memory(memory, rules)
    for page in pages:
        assert fields(ours.access(page)) == told.access(page)
        assert lists_of(ours) == lists_of(told)
        assert (len(ours.inactive) <= memory, len(ours.active) <= active_pages) == (True, True)
    replayed = refault.replay(pages, fitting(pages, memory), rules)
    assert replayed.distances.tolist() == [
        event.distance
        for event in Reference(
            fitting(pages, memory), "fixed lists", entry_after_tick=after, active_pages=active_pages
        ).run(pages)
    ]


# Long enough that the rings go round hundreds of times and the holes in them are closed as often.
@pytest.mark.parametrize("memory", [3, 8, 50])
@pytest.mark.parametrize("rules", LISTS)
def test_long_traces_do_what_the_article_says(rules, memory):
    trace = traces.mix(loop=memory + memory // 4 + 1, pages=3 * memory, n=20_000, share=0.3, seed=memory)
    pages = trace.labels[trace.pages].tolist()
    anon = set(pages[:: len(pages) // 5]) if memory > 3 else set()
    told, ours = Reference(memory, rules, anon), refault.Memory(memory, rules, anon)
    distances = []
    for i, page in enumerate(pages):
        event = told.access(page)
        distances.append(event.distance)
        assert fields(ours.access(page)) == event, i
        if i % 61 == 0:
            assert lists_of(ours) == lists_of(told), i
    replayed = refault.replay(Trace.of(pages, anon=anon), memory, rules)
    assert replayed.distances.tolist() == distances
    assert replayed.summary().items() >= told.counts.items()
    assert told.counts["refaults"] > 1000


# --- One access at a time, and in words. ------------------------------------------------------------------------------


def test_events_are_told_in_words():
    memory = refault.Memory(3, "proposal-2012")
    told = [str(event) for event in memory.run("AABBCADA")]
    assert told == [
        "A: fault, seen for the first time",
        "A: hit; A activated",
        "B: fault, seen for the first time",
        "B: hit; B activated",
        "C: fault, seen for the first time",
        "A: hit",
        "D: fault, seen for the first time; A demoted; C evicted",
        "A: soft fault; A activated",
    ]
    assert str(memory.access("C")) == "C: refault, R = 1; B demoted; D evicted"
    assert (memory.active, memory.inactive, memory.unmapped) == (["A"], ["C", "B"], {"B"})
    assert (memory.shadow, memory.workingset_time) == ({"D": 5}, 5)


def test_an_event_says_what_kind_of_access_it_was():
    cold, hit, refaulted = [refault.Memory(1, "fifo").run(pages)[-1] for pages in ("A", "AA", "ABA")]
    assert [(e.hit, e.refault) for e in (cold, hit, refaulted)] == [(False, False), (True, False), (False, True)]
    assert [e.distance for e in (cold, hit, refaulted)] == [COLD, HIT, 1]


@by_name
@settings(deadline=None, max_examples=40)
@given(pages=page_lists, memory=memories, data=st.data())
def test_memory_and_replay_agree(rules, pages, memory, data):
    anon = some_anonymous(data, pages, rules)
    stepped = refault.Memory(fitting(pages, memory), rules, anon, trace=pages)
    events = stepped.run(pages)
    replayed = refault.replay(Trace.of(pages, anon=anon), fitting(pages, memory), rules)
    assert replayed.distances.tolist() == [event.distance for event in events]
    assert replayed.summary().items() >= stepped.counts.items()
    last = replayed.series.iloc[-1]
    assert (last["inactive"], last["active"]) == (len(stepped.inactive), len(stepped.active))


def test_memory_takes_the_pages_of_a_trace():
    trace = traces.zipf(pages=20, n=100)
    events = refault.Memory(5).run(trace.pages)
    assert [event.distance for event in events] == refault.replay(trace, 5).distances.tolist()
    assert {type(event.page) for event in events} == {int}


# --- Compiled and interpreted. ----------------------------------------------------------------------------------------


def outcome(replay):
    return replay.summary(), replay.distances.tolist(), replay.series.to_dict("records")


@by_name
@settings(deadline=None, max_examples=25)
@given(pages=page_lists, memory=memories, share=shares, data=st.data())
def test_compiled_and_interpreted_agree(rules, pages, memory, share, data):
    trace = Trace.of(pages, anon=some_anonymous(data, pages, rules))
    rules = rules.but(rules.name, inactive_share=share)
    compiled = refault.replay(trace, fitting(pages, memory), rules)
    with interpreted():
        assert outcome(refault.replay(trace, fitting(pages, memory), rules)) == outcome(compiled)


@by_name
def test_compiled_and_interpreted_agree_on_a_long_trace(rules):
    trace = traces.mix(loop=150, pages=600, n=30_000, seed=11)
    compiled = refault.replay(trace, 120, rules, points=7)
    with interpreted():
        assert outcome(refault.replay(trace, 120, rules, points=7)) == outcome(compiled)


DIGESTS = """
import hashlib, json, sys
for absent in sys.argv[1:]:
    sys.modules[absent] = None
from kernelnotes import refault, traces
trace = traces.zipf(pages=300, n=5000, seed=4)
replays = [refault.replay(trace, 60, rules) for rules in refault.RULES]
print(json.dumps([refault.have_numba(), [[r.faults, hashlib.sha256(r.distances).hexdigest()] for r in replays]]))
"""


def test_without_numba_the_results_are_the_same():
    with_numba, without = (
        json.loads(subprocess.run([sys.executable, "-c", DIGESTS, *absent], capture_output=True, check=True).stdout)
        for absent in ([], ["numba", "llvmlite"])
    )
    trace = traces.zipf(pages=300, n=5000, seed=4)
    here = [refault.replay(trace, 60, rules) for rules in RULES]
    assert with_numba == [True, [[r.faults, hashlib.sha256(r.distances).hexdigest()] for r in here]]
    assert without == [False, with_numba[1]]


@pytest.mark.parametrize("rules", ["balanced-2012", "fifo", "opt"])
def test_counts_alone_are_the_same_counts(both_ways, rules):
    trace = traces.zipf(pages=300, n=3000, seed=4)
    everything, counts = refault.replay(trace, 60, rules), refault.replay(trace, 60, rules, keep="counts")
    assert counts.summary() == everything.summary()
    assert (len(counts.distances), len(counts.series)) == (0, 0)
    assert counts.miss_ratio == counts.faults / 3000 == (~everything.hit).mean()


# A reader's own rules, from the operations of rules.py.


def mru(m, rules, page):
    """Most recently used goes first: that page alone is on the inactive list."""
    word = m.word[page]
    distance = HIT
    if word & RESIDENT:
        remove(m, ACTIVE if word & ON_ACTIVE else INACTIVE, page)
    else:
        distance = look_up_shadow(m, word)
        if m.n[LENGTH + INACTIVE] + m.n[LENGTH + ACTIVE] == m.memory:
            evict(m, rules)
    if m.n[LENGTH + INACTIVE]:
        before = take_oldest(m, INACTIVE)
        push_newest(m, ACTIVE, before, m.word[before] & ANON)
    push_newest(m, INACTIVE, page, word & ANON)
    return distance


def straight(m, rules, page):
    """Linux 3.15: a refault with R <= length of the active list goes straight to it."""
    word = m.word[page]
    if word & RESIDENT:
        if not word & ON_ACTIVE:
            activate(m, rules, page)
        return HIT
    distance = look_up_shadow(m, word)
    if m.n[LENGTH + INACTIVE] + m.n[LENGTH + ACTIVE] == m.memory:
        reclaim(m, rules)
    push_newest(m, ACTIVE if 0 <= distance <= m.n[LENGTH + ACTIVE] else INACTIVE, page, word & ANON)
    return distance


def mru_faults(pages, memory):
    resident, faults = [], 0  # the page used last comes last
    for page in pages:
        if page in resident:
            resident.remove(page)
        else:
            faults += 1
            if len(resident) == memory:
                resident.pop()
        resident.append(page)
    return faults


@pytest.mark.parametrize("step", [mru, straight])
def test_rules_of_ones_own_replay_compiled_and_interpreted(step):
    rules = refault.Rules(step.__name__, step)
    for seed in range(5):
        trace = traces.mix(loop=40, pages=80, n=5000, seed=seed)
        compiled = refault.replay(trace, 30, rules)
        with interpreted():
            assert outcome(refault.replay(trace, 30, rules)) == outcome(compiled)
        stepped = refault.Memory(30, rules)
        assert compiled.distances.tolist() == [event.distance for event in stepped.run(trace.pages)]
        if step is mru:
            assert compiled.faults == mru_faults(trace.pages.tolist(), 30)


def forgets_to_evict(m, rules, page):
    """A rule with a mistake."""
    if m.word[page] & RESIDENT:
        return HIT
    push_newest(m, INACTIVE, page, 0)
    return COLD


def forgets_to_answer(m, rules, page):
    """A rule with a mistake."""
    look_up_shadow(m, m.word[page])


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (forgets_to_evict, "'mistaken': .* pages are in a memory of 2, expected the step function to evict"),
        (forgets_to_answer, "forgets_to_answer.. cannot be compiled|step returned None|interpret"),
    ],
)
def test_a_rule_with_a_mistake_is_refused_by_name(step, said):
    mistaken = refault.Rules("mistaken", step)
    with pytest.raises(BadInput, match=said):
        refault.replay(list(range(100)) * 2, 2, mistaken)
    with pytest.raises(BadInput, match=said):
        refault.Memory(2, mistaken).run("ABCDE")


def test_rules_must_be_a_function_and_choices():
    for step, choices in ((5, refault.Choices()), (refault.lru, {"a": 1})):
        with pytest.raises(BadInput, match="expected a step function and Choices"):
            refault.Rules("mistaken", step, choices)


def test_a_trace_may_stand_wherever_pages_may():
    loop = traces.cyclic(3, 2)
    assert refault.Memory(2, "lru").run(loop) == refault.Memory(2, "lru").run([0, 1, 2, 0, 1, 2])
    assert [e.distance for e in refault.Memory(2, "opt", trace=loop).run(loop)] == refault.replay(
        loop, 2, "opt"
    ).distances.tolist()


def takes_what_is_not_there(m, rules, page):
    """A rule with a mistake."""
    return take_oldest(m, ACTIVE)


def test_a_rule_that_takes_from_an_empty_list_fails_instead_of_hanging(both_ways):
    with pytest.raises(IndexError, match="the list is empty"):
        refault.replay(traces.cyclic(10, 2), 3, refault.Rules("mistaken", takes_what_is_not_there))


def test_mru_is_as_good_as_knowing_the_future_on_a_loop():
    trace = traces.cyclic(pages=50, laps=9)
    assert refault.replay(trace, 20, refault.Rules("mru", mru)).faults == refault.replay(trace, 20, "opt").faults


# --- The fewest faults. -----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=300)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=9), st.integers(1, 3))
@example([0, 1, 2, 3, 0, 1, 4, 0, 1], 3)
def test_opt_has_the_fewest_faults_that_any_choice_leads_to(pages, memory):
    memory = fitting(pages, memory)
    assert refault.replay(pages, memory, "opt").faults == fewest_faults(pages, memory)


@settings(deadline=None, max_examples=60)
@given(page_lists, memories, st.data())
def test_nobody_has_fewer_faults_than_opt(pages, memory, data):
    trace = Trace.of(pages, anon=data.draw(st.sets(st.sampled_from(pages))))
    memory = fitting(pages, memory)
    least = refault.replay(trace, memory, "opt").faults
    for rules in (*LISTS, refault.Rules("mru", mru), RULES["proposal-2012"].but("x", inactive_share=20)):
        assert least <= refault.replay(trace, memory, rules).faults


# --- Closed forms and laws. -------------------------------------------------------------------------------------------


# workingset_time also counts the page's own eviction: the 2012 code reads the clock after that tick, the others before.
@pytest.mark.parametrize(("rules", "own_tick"), [("fifo", 0), ("lru", 0), ("balanced-2012", 1), ("proposal-2012", 1)])
@pytest.mark.parametrize(("pages", "memory"), [(2, 1), (10, 9), (120, 100), (120, 7)])
def test_a_loop_one_page_too_long_never_hits(both_ways, rules, own_tick, pages, memory):
    replay = refault.replay(traces.cyclic(pages, laps=4), memory, rules)
    assert (replay.hits, replay.refaults) == (0, 3 * pages)
    assert set(replay.distances[:pages]) == {COLD}
    assert set(replay.distances[pages:]) == {pages - memory - own_tick}


@by_name
def test_a_loop_that_fits_is_read_once(rules):
    replay = refault.replay(traces.cyclic(pages=30, laps=4), 30, rules)
    assert (replay.faults, replay.evictions, replay.refaults) == (30, 0, 0)


# After the first lap OPT holds the newest page and the first `memory` - 1; from then on each `pages` - 1 accesses are
# `memory` - 1 hits, then `pages` - `memory` faults, each of which evicts the page that was just used.
@pytest.mark.parametrize("pages", [2, 3, 10, 37])
@pytest.mark.parametrize("laps", [1, 2, 3, 11])
def test_opt_on_a_loop_keeps_all_but_one_place_for_hits(pages, laps):
    for memory in range(1, pages):
        rounds, rest = divmod((laps - 1) * pages, pages - 1)
        faults = pages + rounds * (pages - memory) + max(0, rest - (memory - 1))
        assert refault.replay(traces.cyclic(pages, laps), memory, "opt").faults == faults


def test_belady_found_fifo_worse_with_more_memory():
    assert [refault.replay("123412512345", memory, "fifo").faults for memory in (3, 4)] == [9, 10]


@settings(deadline=None, max_examples=100)
@given(page_lists)
def test_lru_with_more_memory_hits_whatever_it_hit_with_less(pages):
    before = np.zeros(len(pages), dtype=bool)
    for memory in range(1, min(len(pages), 12) + 1):
        now = refault.replay(pages, memory, "lru").hit
        assert not (before & ~now).any()
        before = now


@by_name
@settings(deadline=None, max_examples=30)
@given(pages=page_lists, memory=memories, data=st.data())
def test_the_counts_add_up(rules, pages, memory, data):
    trace = Trace.of(pages, anon=some_anonymous(data, pages, rules))
    memory = fitting(pages, memory)
    r = refault.replay(trace, memory, rules)
    end = r.series.iloc[-1]
    assert r.accesses == r.hits + r.faults == len(pages)
    assert r.faults == (r.distances != HIT).sum()
    assert r.refaults == (r.distances >= 0).sum() == r.faults - trace.unique
    generations = rules.step is refault.mglru  # no clock
    if rules.choices.ghosts or generations:  # an activation is no reference there: the clock counts evictions alone
        assert end["workingset_time"] == (0 if generations else r.evictions)
        assert end["inactive"] + end["active"] == r.faults - r.evictions == min(trace.unique, memory)
        return
    batched = r.faults - r.evictions - end["inactive"] - end["active"]
    assert 0 <= batched < max(1, rules.choices.batch)
    queued = end["workingset_time"] - r.evictions - r.activations - r.refault_activations
    assert queued == 0 if rules.choices.batch == 1 else queued >= 0
    assert (r.distances <= end["workingset_time"]).all()
    if rules.choices.batch > 1:
        return
    assert r.soft_faults <= min(r.activations, r.deactivations)
    entered_active = trace.anon[trace.pages][r.distances != HIT].sum() if rules.step is article.two_lists else 0
    assert end["active"] == entered_active + r.activations + r.refault_activations - r.deactivations
    if rules.step is not article.fixed_lists:
        assert end["inactive"] + end["active"] == min(trace.unique, memory)


# --- Another package on the same traces. ------------------------------------------------------------------------------

SHAPES = {
    "zipf": traces.zipf(pages=2000, n=20_000, seed=1),
    "mix": traces.mix(loop=700, pages=1500, n=20_000, seed=2),
    "scan": traces.scan_over_hot(hot=300, scan=5000, n=20_000, seed=3),
    "shift": traces.shift(old=850, new=850, laps=4, passes=8),
    "uniform": traces.uniform(pages=900, n=20_000, seed=4),
    "cyclic": traces.cyclic(pages=600, laps=20),
}
PEERS = {
    "lru": libcachesim.LRU,
    "fifo": libcachesim.FIFO,
    "clock": libcachesim.Clock,
    "sieve": libcachesim.Sieve,
    "2q": libcachesim.TwoQ,
    "arc": libcachesim.ARC,
    "s3fifo": libcachesim.S3FIFO,
    "opt": libcachesim.Belady,
}
LEAST = {"2q": 4, "s3fifo": 20}  # below, one of its queues has no room, and libcachesim keeps no page at all


@pytest.mark.parametrize("shape", SHAPES)
def test_libcachesim_counts_the_same_misses(shape, tmp_path):
    trace = SHAPES[shape]
    records = np.zeros(len(trace), dtype=[("clock", "<u4"), ("id", "<u8"), ("size", "<u4"), ("next", "<i8")])
    later = refault.next_uses(trace.pages)
    records["clock"], records["id"], records["size"] = np.arange(len(trace)), trace.pages.astype(np.uint64) + 1, 1
    records["next"] = np.where(later == len(trace), -1, later)
    records.tofile(tmp_path / "trace.oracleGeneral")
    parameters = libcachesim.ReaderInitParam(ignore_obj_size=True)
    for rules, cache in PEERS.items():
        for memory in (1, 4, 10, 21, 100, 333, 599, 600, 850):
            if memory < LEAST.get(rules, 1):
                continue
            reader = libcachesim.TraceReader(
                str(tmp_path / "trace.oracleGeneral"), libcachesim.TraceType.ORACLE_GENERAL_TRACE, parameters
            )
            miss_ratio, _ = cache(memory, hashpower=12).process_trace(reader)
            replay = refault.replay(trace, memory, rules, keep="counts")
            assert replay.faults == round(miss_ratio * len(trace)), (rules, memory)


# --- The cover letter of the proposal. --------------------------------------------------------------------------------


def misses_per_pass(rules, old=8500, new=8500, passes=12, memory=10_000):
    replay = refault.replay(traces.shift(old, new, laps=4, passes=passes), memory, rules)
    return (~replay.hit)[4 * old :].reshape(passes, new).sum(axis=1).tolist(), replay


def test_balanced_lists_never_adapt_to_the_shift_of_the_cover_letter():
    misses, replay = misses_per_pass("balanced-2012")
    assert misses == [8500] * 12
    assert (replay.series["active"].iloc[-1], replay.series["inactive"].iloc[-1]) == (5000, 5000)


# In each of passes 2 to 4 the pages from the 1500th on (memory - new) find R < active and demote, 1501 times, until R,
# which they lower by one each, and the active list, which they shorten by one each, have met one pass later.  That
# leaves 497 pages on the active list; in pass 5 the first 1500 accesses miss as ever, 497 more demote what is left, and
# from there on the inactive list reaches back over the whole set.  With the clock read before the tick, R is one more:
# 1500 demotions in a pass, 500 pages left, and the last of these is never demoted, because R = 1 is not less than 1.
@pytest.mark.parametrize(("own_tick", "fifth"), [(1, 1500 + 497), (0, 1500 + 499)])
def test_the_proposal_adapts_to_the_shift_of_the_cover_letter(own_tick, fifth):
    misses, replay = misses_per_pass(RULES["proposal-2012"].but("x", entry_after_tick=own_tick))
    assert misses == [8500] * 4 + [fifth] + [0] * 7
    assert replay.deactivations == {1: 8500, 0: 8499}[own_tick]


def test_a_new_set_larger_than_memory_shrinks_the_old_one_to_half_under_both():
    for rules in TWO_LISTS:
        misses, replay = misses_per_pass(rules, new=12_000, passes=6)
        assert misses == [12_000] * 6
        assert replay.series["active"].iloc[-1] == 5000


def test_a_small_inactive_share_is_what_leaves_the_old_set_alone():
    for rules in TWO_LISTS:
        misses, replay = misses_per_pass(RULES[rules].but("x", inactive_share=11), new=12_000, passes=6)
        assert misses == [12_000] * 6
        assert replay.series["active"].iloc[-1] == 8500


# --- Time wraps. ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", [r for r in ANY if r.step is not refault.mglru], ids=lambda rules: rules.name)
def test_distances_are_right_across_the_wrap_of_time(both_ways, rules):
    trace = traces.mix(loop=15, pages=60, n=2000, seed=8)
    expected = refault.replay(trace, 20, rules)
    for before_wrap in (1, 2, 70):
        choices, kernel = replays._kernel(trace, rules, None, ())
        m = replays._state(trace, 20, rules, kernel)
        m.n[lists.WORKINGSET_TIME] = lists.TIME_MASK + 1 - before_wrap
        distances = np.empty(len(trace), dtype=np.int64)
        replays._runner(rules.step)(m, choices, trace.pages, 0, len(trace), distances)
        assert m.n[lists.WORKINGSET_TIME] > lists.TIME_MASK
        assert distances.tolist() == expected.distances.tolist()


# --- Many replays. ----------------------------------------------------------------------------------------------------


def test_sweep_has_a_row_for_each_replay():
    trace = traces.zipf(pages=200, n=3000, seed=1)
    table = refault.sweep(trace, [10, 50], ["lru", RULES["proposal-2012"].but("mine", inactive_share=10)])
    rows = [("lru", 10), ("lru", 50), ("mine", 10), ("mine", 50)]
    assert list(zip(table["rules"], table["memory"], strict=True)) == rows
    assert table["faults"].iloc[1] == refault.replay(trace, 50, "lru").faults
    assert table["miss_ratio"].tolist() == (table["faults"] / 3000).tolist()
    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        again = refault.sweep(trace, [10, 50], ["lru", RULES["proposal-2012"].but("mine", inactive_share=10)], executor)
    assert again.equals(table)


def test_a_replay_is_shown_by_its_counts():
    replay = refault.replay(traces.cyclic(pages=3, laps=2), 2, "lru")
    assert repr(replay) == (
        "<Replay of cyclic(3 pages, 2 laps) under lru, memory 2 pages: 6 accesses, 6 faults, 3 refaults (model)>"
    )


# --- Bad input. -------------------------------------------------------------------------------------------------------


def refused(said, call):
    with pytest.raises(BadInput, match=said):
        call()


@pytest.mark.parametrize(
    ("memory", "said"),
    [
        (0, "memory is 0 pages, expected 1 to"),
        (-3, "memory is -3 pages, expected 1 to"),
        (2**40, "memory is 1099511627776 pages, expected 1 to"),
        (2**70, "memory is 1180591620717411303424 pages, expected 1 to"),
        *((bad, re.escape(f"memory is {bad!r}, expected a whole number")) for bad in (1.0, True, None, "3", [2], 1j)),
        (np.float64(2), "memory is .*2.0.*, expected a whole number"),
        (np.bool_(True), "memory is .*True.*, expected a whole number"),
        (np.array([2]), "memory is array.*, expected a whole number"),
        (float("nan"), "memory is nan, expected a whole number"),
    ],
    ids=repr,
)
def test_memory_must_be_a_number_of_pages(memory, said):
    refused(said, lambda: refault.Memory(memory))
    refused(said, lambda: refault.replay([1, 2, 3], memory))
    refused(said, lambda: refault.sweep([1, 2, 3], [1, memory], ["lru"]))


def test_memory_larger_than_the_trace_is_refused():
    refused("memory is 4 pages, larger than the whole trace of 3 accesses", lambda: refault.replay([1, 2, 3], 4))
    refused("memory is 4 pages, larger than the whole", lambda: refault.sweep([1, 2, 3], [1, 4], ["lru"]))
    assert refault.replay([1, 2, 3], np.int32(3)).faults == 3


@pytest.mark.parametrize("rules", ["nope", "", None, 3, ["lru"], {}, len], ids=repr)
def test_unknown_rules_are_answered_with_the_known_ones(rules):
    said = re.escape(f"unknown rules {rules!r}, expected one of {', '.join(RULES)}")
    refused(said, lambda: refault.Memory(2, rules))
    refused(said, lambda: refault.replay([1, 2], 2, rules))
    refused(said, lambda: refault.sweep([1, 2], [2], ["lru", rules]))


@pytest.mark.parametrize(
    ("choice", "least", "most"),
    [
        ("inactive_share", 0, 100),
        ("entry_after_tick", 0, 1),
        ("activation_ticks", 0, 1),
        ("refault_demotes", 0, 1),
        ("active_pages", 0, 2**24),
        ("batch", 1, 31),
        ("ratio", 0, 1000),
    ],
)
def test_choices_out_of_range_are_refused(choice, least, most):
    for value in (least - 1, most + 1, 0.5, True, None, "1"):
        said = re.escape(f"rules 'mine': {choice} is {value!r}, expected an integer from {least} to {most}")
        refused(said, lambda value=value: RULES["proposal-2012"].but("mine", **{choice: value}))
    for value in (least, most):
        assert getattr(RULES["proposal-2012"].but("mine", **{choice: value}).choices, choice) == value


def test_an_unknown_choice_is_answered_with_the_known_ones():
    refused("unknown choice 'share', expected one of inactive_share,", lambda: RULES["fifo"].but("mine", share=1))


def test_keep_and_points_are_checked():
    for keep in ("everything", None, [], 3):
        said = re.escape(f"keep is {keep!r}, expected 'accesses' or 'counts'")
        refused(said, lambda keep=keep: refault.replay([1], 1, keep=keep))
    for points in (0, -1, 1.5, None, "3", True):
        said = re.escape(f"points is {points!r}, expected an integer >= 1")
        refused(said, lambda points=points: refault.replay([1], 1, points=points))


@pytest.mark.parametrize(
    ("pages", "said"),
    [([], "at least one access"), ([-1], "page -1"), ([2**63], "page 9223372036854775808"), ([1.0], "page 1.0")],
)
def test_a_bad_trace_is_refused_before_anything_runs(pages, said, monkeypatch):
    monkeypatch.setattr(replays, "_runner", None)
    refused(said, lambda: refault.replay(pages, 1))
    refused(said, lambda: refault.sweep(pages, [1], ["lru"]))


def test_a_sweep_is_refused_before_its_first_replay(monkeypatch):
    monkeypatch.setattr(replays, "_runner", None)
    for memory in (3, None, "12", []):
        refused("memory is ", lambda memory=memory: refault.sweep([1, 2], memory, ["lru"]))
    for rules in ("lru", None, []):
        refused("rules is ", lambda rules=rules: refault.sweep([1, 2], [1], rules))
    refused("larger than the whole trace", lambda: refault.sweep([1, 2], [1, 3], ["lru"]))
    refused("unknown rules 'nope'", lambda: refault.sweep([1, 2], [1], ["lru", "nope"]))


@pytest.mark.parametrize("page", [-1, 1.0, True, None, b"a", (1,), [1], {}, np.float64(1), np.int32(-1)], ids=repr)
def test_a_page_that_is_none_changes_nothing(page):
    memory = refault.Memory(2)
    memory.run([1, 2, 3])
    before = lists_of(memory)
    refused(re.escape(f"page {page!r} is a {type(page).__name__}, expected"), lambda: memory.access(page))
    assert lists_of(memory) == before
    refused(re.escape(f"page {page!r} is a "), lambda: refault.Memory(2, anon=[page]))
    refused(re.escape(f"page {page!r} is a "), lambda: refault.Memory(2, "opt", trace=[page]))


def test_anonymous_pages_and_the_future_must_be_sequences():
    for wrong in (5, 1.5, len):
        refused(re.escape(f"anon is {wrong!r}"), lambda wrong=wrong: refault.Memory(2, anon=wrong))
        refused(re.escape(f"trace is {wrong!r}"), lambda wrong=wrong: refault.Memory(2, "opt", trace=wrong))
    refused("anon is None", lambda: refault.Memory(2, anon=None))


def test_opt_must_be_told_the_future_and_held_to_it():
    refused("looks into the future", lambda: refault.Memory(2, "opt"))
    memory = refault.Memory(2, "opt", trace="ABA")
    refused("access 0 is to page 'B', but the trace given to Memory says page 'A'", lambda: memory.access("B"))
    memory.run("ABA")
    refused("access 3 is to page 'A', but the trace given to Memory says the end", lambda: memory.access("A"))
    assert memory.counts["faults"] == 2
