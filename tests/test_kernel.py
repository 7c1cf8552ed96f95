"""The rules of Linux against kernels: recorded runs, the cover letter of 2012; and against a second reading of them."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_kernel import ReferenceKernel

from kernelnotes import refault, traces
from kernelnotes.errors import BadInput
from kernelnotes.recordings.runs import kernel_runs
from kernelnotes.refault import DETAILS, RULES, Clock, kernel
from kernelnotes.refault.nodes import Nodes
from kernelnotes.traces import Trace

RUNS = kernel_runs()
TODAY = RULES["linux-6.18"]


# --- Recorded runs. ---------------------------------------------------------------------------------------------------


def predicted(run, rules=TODAY, flushes=None):
    trace = run.trace()
    known = set(trace.labels.tolist())
    foreign = [(at, page) for at, page in run.foreign if page in known]
    return refault.replay(
        trace, run.memory, rules, keep="counts", flushes=run.flushes if flushes is None else flushes, foreign=foreign
    )


def error(counted, told):
    return abs(told / counted - 1) if counted else 0.0


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.id)
def test_what_a_kernel_counted_is_predicted(run):
    told, counted = predicted(run), run.counters
    assert error(counted["misses"], told.faults) <= 0.005
    assert abs(told.refaults - counted["refault_file"]) <= max(70, 0.01 * counted["refault_file"])
    if counted["activate_file"] >= 500:
        assert error(counted["activate_file"], told.refault_activations) <= 0.03


def test_most_misses_are_predicted_to_the_page():
    exact = sum(predicted(run).faults == run.counters["misses"] for run in RUNS)
    assert exact >= len(RUNS) // 2


def test_there_are_runs_with_refaults_with_evictions_from_outside_and_with_a_reader():
    assert len(RUNS) == 76
    assert sum(run.counters["refault_file"] >= 500 for run in RUNS) > 50
    assert sum(len(run.foreign) > 0 for run in RUNS) > 30
    assert {run.sample_period for run in RUNS} == {0, 512}


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.id)
def test_the_nodes_are_charged_to_the_page(run):
    nodes = Nodes()
    trace = run.trace()
    for label in trace.labels.tolist():
        nodes.number(label)
    state = traces_state(sum(nodes.parents) + len(nodes.parents) - 1)
    assert kernel.pages_of_nodes(state) == run.counters["kmem_end"] - run.counters["kmem_start"]


def traces_state(nodes):
    n = [0] * kernel.LENGTHS
    n[kernel.NODES] = nodes
    return type("State", (), {"n": n})


# The error without it must be well above the error with it, in the runs where it shows most (the facts of `Choices`).
@pytest.mark.parametrize(
    ("detail", "at_least"),
    [
        ("refault activation", 0.5),
        ("referenced bit", 0.03),
        ("batches", 0.01),
        ("priority scan", 0.05),
        ("stale statistics", 0.1),
        ("activation ticks", 0.02),
        ("charged nodes", 0.005),
        ("deactivation on refaults", 0.005),
    ],
)
def test_every_detail_is_worth_something(detail, at_least):
    worst = max(error(run.counters["misses"], predicted(run, TODAY.without(detail)).faults) for run in RUNS)
    assert worst >= at_least


def test_without_flushes_the_statistics_are_never_stale():
    run = next(run for run in RUNS if run.workload == "shift" and not run.sample_period)
    fresh = refault.replay(run.trace(), run.memory, TODAY, keep="counts")
    assert fresh.summary() | {"rules": 0} == refault.replay(
        run.trace(), run.memory, TODAY.without("stale statistics"), keep="counts"
    ).summary() | {"rules": 0}
    assert fresh.faults != predicted(run).faults


# --- Read a second time. ----------------------------------------------------------------------------------------------


@st.composite
def programs(draw):
    """Accesses, memory, and flushes, evictions and readahead that make everything happen, often at once."""
    seed, memory = draw(st.integers(0, 2**32)), draw(st.integers(40, 300))
    rng = random.Random(seed)
    footprint, n = draw(st.integers(memory // 2, 4 * memory)), draw(st.integers(100, 3000))
    spread = draw(st.sampled_from((1, 1, 7, 64, 5000)))  # pages far apart need a node each
    weights = [1 / (1 + page) ** draw(st.sampled_from((0.0, 0.7, 1.2))) for page in range(footprint)]
    pages = rng.choices([spread * page for page in range(footprint)], weights, k=n)
    at = draw(st.integers(0, n))  # from there on a loop
    pages[at:] = [spread * (i % footprint) for i in range(n - at)]
    flushes = rng.sample(range(n), min(n, draw(st.sampled_from((0, 1, 5, n // 20)))))
    foreign = [(rng.randrange(n), rng.choice(pages)) for _ in range(draw(st.sampled_from((0, 0, 3, 40))))]
    ahead = [(rng.randrange(n), rng.choice(pages)) for _ in range(draw(st.sampled_from((0, 0, 30, 300))))]
    foreign, ahead = (sorted(pairs, key=lambda pair: pair[0]) for pairs in (foreign, ahead))
    ways = [0] * n
    if draw(st.booleans()):  # some pages are mapped, some of these code, some read as well
        by_page = {page: rng.choices((0, 1, 2), (3, 3, 1))[0] for page in pages}
        ways = [by_page[page] if rng.random() < 0.9 else 0 for page in pages]
    return pages, ways, memory, {"flushes": sorted(flushes), "foreign": foreign, "ahead": ahead}


@settings(deadline=None, max_examples=100)
@given(programs(), st.booleans())
def test_replay_does_what_a_second_reading_says(program, charged):
    pages, ways, memory, others = program
    trace = Trace.of(pages, mapped=ways)
    told = ReferenceKernel(memory, **others, charged=charged)
    rules = TODAY if charged else TODAY.without("charged nodes")
    try:
        distances = [told.access(page, way) for page, way in zip(pages, ways, strict=True)]
    except MemoryError:
        with pytest.raises(BadInput, match=r"too few .* there is nothing left to reclaim"):
            refault.replay(trace, min(memory, len(pages)), rules, **others)
        return
    if memory > len(pages):
        return
    ours = refault.replay(trace, memory, rules, **others)
    assert ours.read_ahead == told.read_ahead
    assert ours.distances.tolist() == distances
    assert ours.summary().items() >= told.counts.items()
    end = ours.series.iloc[-1]
    assert (end["inactive"], end["active"], end["workingset_time"]) == (
        len(told.inactive),
        len(told.active),
        told.age,
    )


@pytest.mark.parametrize("memory", range(40, 60))
def test_a_node_that_readahead_brings_in_first_comes_with_the_nodes_above_it(memory):
    pages = [64 * i for i in range(150) if i != 66] + [64 * 66]
    early = [(40, 64 * 66)]  # the tree grows by a level now, not when its neighbour 65 is read
    told = ReferenceKernel(memory, ahead=early)
    distances = [told.access(page) for page in pages]
    ours = refault.replay(Trace.of(pages), memory, TODAY, flushes=[], ahead=early)
    assert ours.distances.tolist() == distances
    assert ours.summary().items() >= told.counts.items()


# --- Mapped pages, a list at a time. ----------------------------------------------------------------------------------

# Linux 3.15 looks at a page at a time, and nothing is queued: small memories show what happens.
OLD = RULES["linux-3.15"]


def mapped(*ways, memory=3, rules=OLD):
    """Replay accesses such as "A" (read), "*A" (touched through a mapping), "#A" (of code)."""
    way = {"*": traces.MAPPED, "#": traces.EXECUTABLE}
    trace = Trace.of([page.strip("*#") for page in ways], mapped=[way.get(page[0], traces.READ) for page in ways])
    return refault.replay(trace, memory, rules)


def test_a_page_that_was_touched_makes_a_second_trip_through_the_inactive_list():
    assert mapped("A", "B", "C", "D", "A").distances[-1] == 1  # read pages go in order
    assert mapped("*A", "B", "C", "D", "A").hit[-1]
    assert not mapped("*A", "B", "C", "D", "E", "F", "G", "A").hit[-1]  # it was touched once
    assert mapped("*A", "B", "C", "D", "*A", "E", "F", "G", "A").hit[-1]


def test_the_second_time_it_is_activated_and_code_at_the_first():
    assert mapped("*A", "B", "C", "D").activations == 0
    assert mapped("*A", "B", "C", "D", "*A", "E", "F", "G").activations == 1
    assert mapped("#A", "B", "C", "D").activations == 1


def test_code_that_is_touched_stays_on_the_active_list():
    program = ["#A", "*B", "C", "D", "E", "*B", "#A", "F", "G", "H"]
    told = mapped(*program, "#A", "I", "J", "K", "#A", "L", "M", "N", "A")
    assert told.hit[-1]
    assert told.activations >= 1


def test_the_ticks_of_reclaim_are_a_choice():
    told, as_today = (mapped("#A", "B", "C", "D", rules=rules) for rules in (OLD, OLD.but("ticks", reclaim_ticks=1)))
    ticked = as_today.series["workingset_time"] - told.series["workingset_time"]
    assert ticked.iloc[-1] == 1
    with pytest.raises(BadInput, match="there is no 'ticks of reclaim' to leave out"):
        OLD.without("ticks of reclaim")


def test_a_soft_fault_maps_what_is_in_memory_already():
    assert mapped("A", "*A", "*A", "B", "*B").soft_faults == 2
    assert mapped("*A", "A", "*A").soft_faults == 0  # the fault that read it mapped it


def test_touches_alone_never_end_in_nothing_to_reclaim():
    told = mapped(*[f"*{page}" for page in "ABCABCDEFABCXYZ" * 5])
    assert told.evictions == told.faults - 3


def test_rules_that_know_no_mappings_take_a_touch_for_a_read():
    for rules in ("lru", "balanced-2012", "mglru-simplified"):
        assert (
            mapped("*A", "#B", "C", "*A", "D", rules=rules).faults
            == mapped("A", "B", "C", "A", "D", rules=rules).faults
        )


def test_nodes_are_freed_with_their_shadow_entries_as_in_a_fresh_cgroup():
    # Nothing was ever seen, so every node without a page in memory is one too many.
    pages = traces.cyclic(pages=24_576, laps=3).pages.tolist()
    told = ReferenceKernel(2048)
    distances = [told.access(page) for page in pages]
    ours = refault.replay(pages, 2048, TODAY, flushes=[])
    assert ours.distances.tolist() == distances
    lost = ours.faults - ours.refaults - 24_576
    assert lost > 0
    assert lost % 64 == 0
    assert refault.replay(pages, 2048, TODAY.without("shadow shrinker"), flushes=[]).refaults == ours.refaults + lost


def test_one_access_at_a_time_is_the_same():
    trace = traces.mix(loop=300, pages=900, n=20_000, seed=3)
    memory = refault.Memory(250, TODAY)
    events = memory.run(trace)
    replayed = refault.replay(trace, 250, TODAY)
    assert [event.distance for event in events] == replayed.distances.tolist()
    assert replayed.summary().items() >= memory.counts.items()
    resident = len(memory.inactive) + len(memory.active) + len(memory.batch)
    assert resident == replayed.faults - replayed.evictions <= 250


def test_a_new_page_waits_in_a_batch():
    memory = refault.Memory(100, TODAY)
    memory.run(range(30))
    assert (memory.batch, memory.inactive) == (list(range(29, -1, -1)), [])
    memory.access(30)
    assert (memory.batch, memory.inactive) == ([], list(range(30, -1, -1)))


# --- The cover letter of 2012: when is an old set given up?  (Message 1335861713-4573-1.) -----------------------------


def misses_per_pass(rules, new, ratio, old=8500, memory=10_000, passes=12):
    replay = refault.replay(traces.shift(old, new, laps=4, passes=passes), memory, RULES[rules].but(rules, ratio=ratio))
    return (~replay.hit)[4 * old :].reshape(passes, new).sum(axis=1).tolist(), replay.series["active"].iloc[-1]


@pytest.mark.parametrize("ratio", [1, 8])
def test_before_the_proposal_the_new_set_is_read_for_ever(ratio):
    before = RULES["linux-3.15"].but("before", refault_activates=0, ratio=ratio)
    replay = refault.replay(traces.shift(8500, 8500, laps=4, passes=12), 10_000, before)
    assert (~replay.hit)[4 * 8500 :].all()


@pytest.mark.parametrize(
    ("rules", "ratio", "passes"),  # so many passes miss everything, one in part; then nothing misses
    [("proposal-2012-patch", 1, 4), ("proposal-2012-patch", 8, 6), ("linux-3.15", 1, 2), ("linux-3.15", 8, 2)],
)
def test_the_new_set_is_taken_in_after_a_few_passes(rules, ratio, passes):
    misses, active = misses_per_pass(rules, 8500, ratio)
    assert misses[:passes] == [8500] * passes
    assert 0 < misses[passes] < 8500
    assert misses[passes + 2 :] == [0] * (10 - passes)
    assert active >= 8500


@pytest.mark.parametrize("rules", ["proposal-2012-patch", "linux-3.15"])
def test_a_new_set_larger_than_memory_leaves_the_old_one_alone_by_the_ratio_and_not_by_refault_distance(rules):
    assert misses_per_pass(rules, 12_000, 8, passes=6) == ([12_000] * 6, 8500)
    assert misses_per_pass(rules, 12_000, 1, passes=6) == ([12_000] * 6, 5000)


def test_a_refault_at_distance_0_is_no_reason_to_deactivate():
    pages = [0, 0, 1, 2, 1, 2, 1]  # page 0 is active; of 1 and 2 each is evicted for the other
    patch = refault.replay(pages, 2, "proposal-2012-patch")
    assert patch.distances.tolist() == [-2, -1, -2, -2, 0, 0, 0]
    assert patch.deactivations == 0
    assert refault.replay(pages, 2, RULES["proposal-2012-patch"].but("x", entry_after_tick=0)).deactivations == 0


@pytest.mark.parametrize(("gib", "ratio"), [(0, 1), (1, 3), (2, 4), (10, 10), (100, 31), (1024, 101)])
def test_the_ratio_is_the_one_of_the_table_in_the_kernel(gib, ratio):
    assert kernel.ratio_for(gib << 18) == ratio == max(1, math.isqrt(10 * gib))


# --- A clock instead of flushes. --------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32), st.floats(0, 1), st.sampled_from((0.01, 0.1, 1.0)))
def test_a_clock_flushes_when_its_time_has_come(seed, phase, period):
    trace = traces.mix(loop=300, pages=900, n=5000, seed=seed)
    by_clock = refault.replay(trace, 250, TODAY, flushes=Clock(hit_us=2, miss_us=100, period_s=period, phase=phase))
    done_us = np.concatenate([[0], np.cumsum(np.where(by_clock.hit, 2, 100))])[:-1]
    due_us = (phase + np.arange(1000)) * period * 1e6
    flushes = np.searchsorted(done_us, np.round(due_us, 3), side="left")
    by_index = refault.replay(trace, 250, TODAY, flushes=flushes[flushes < len(trace)].tolist())
    assert by_index.distances.tolist() == by_clock.distances.tolist()


# --- Bad input. -------------------------------------------------------------------------------------------------------


def refused(said, call, *args, **options):
    with pytest.raises(BadInput, match=said):
        call(*args, **options)


def test_what_is_left_out_must_be_there():
    refused("unknown detail 'luck', expected one of refault activation,", TODAY.without, "luck")
    refused("unknown detail None", TODAY.without, None)
    refused("'linux-3.15': there is no 'batches' to leave out", RULES["linux-3.15"].without, "batches")
    refused("'proposal-2012': there is no 'activation ticks'", RULES["proposal-2012"].without, "activation ticks")
    for detail in DETAILS:
        assert TODAY.without(detail).name == f"linux-6.18 without {detail}"


def test_flushes_and_evictions_must_be_places_in_the_trace():
    for bad in (3, [-1], [0.5], ["a"], [[1]]):
        refused("flushes", refault.replay, [1, 2, 3], 2, TODAY, flushes=bad)
    for bad in (3, [3], [(0,)], [(-1, 1)], [("a", 1)]):
        refused("foreign", refault.replay, [1, 2, 3], 2, TODAY, foreign=bad)
    refused("ahead: page 9 does not occur in trace", refault.replay, [1, 2, 3], 2, TODAY, ahead=[(0, 9)])
    refused("'lru': flushes, foreign evictions and readahead", refault.replay, [1, 2, 3], 2, "lru", ahead=[(0, 1)])
    refused("foreign: page 9 does not occur in trace", refault.replay, [1, 2, 3], 2, TODAY, foreign=[(0, 9)])
    for given_too in ({"flushes": [1]}, {"foreign": [(0, 1)]}, {"flushes": Clock(hit_us=1, miss_us=1)}):
        refused(
            "'lru': flushes, foreign evictions and readahead matter", refault.replay, [1, 2, 3], 2, "lru", **given_too
        )


@pytest.mark.parametrize(
    "wrong",
    [{"hit_us": -1}, {"miss_us": "1"}, {"period_s": 0}, {"phase": 1.5}, {"hit_us": True}, {"miss_us": math.nan}],
)
def test_a_clock_needs_times(wrong):
    refused(f"clock: {next(iter(wrong))} is ", Clock, **({"hit_us": 1, "miss_us": 1} | wrong))


def test_a_memory_full_of_what_cannot_be_reclaimed_is_refused():
    anonymous = Trace.of([1, 2, 3, 4], anon=[1, 2])
    refused(
        "memory is 2 pages, too few for trace under linux-3.15: there is", refault.replay, anonymous, 2, "linux-3.15"
    )
    refused("memory is 1 pages, too few for", refault.replay, [1, 2], 1, TODAY)
    refused("memory is 2 pages, too few under linux-3.15", refault.Memory(2, "linux-3.15", anon=[1, 2]).run, [1, 2, 3])
