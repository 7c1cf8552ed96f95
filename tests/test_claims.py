"""The claim of the article, a list R pages longer would have kept the page: where it holds, and what breaks it."""

import functools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import Reference

from kernelnotes import refault, traces
from kernelnotes.errors import BadInput
from kernelnotes.refault import RULES, check_claim, counterexample
from kernelnotes.refault.claims import OUTCOMES, fixed_lists

page_lists = st.integers(2, 10).flatmap(lambda pages: st.lists(st.integers(0, pages - 1), min_size=1, max_size=80))
memories = st.integers(1, 5)

# Rules of ours, and how the second reading of the article (reference.py) is told to follow them.
FIFO = (RULES["fifo"], {"rules": "fifo"})
LRU = (RULES["lru"], {"rules": "lru"})
FOR_EVER = (fixed_lists(), {"rules": "fixed lists", "active_pages": 99})
NONE_ACTIVE = (fixed_lists(0), {"rules": "fixed lists", "active_pages": 0})
ONE_ACTIVE = (fixed_lists(1), {"rules": "fixed lists", "active_pages": 1})
HOLDS = (FOR_EVER, NONE_ACTIVE, LRU)
FAILS = {"ABACA": FIFO, "ABBACBDC": ONE_ACTIVE}  # with the smallest counterexample, in a memory of 1


def name_of(rules):
    return rules[0].name if isinstance(rules, tuple) else None


def looking_late(rules):
    """With the clock of 2012: read after the page's own eviction has advanced it."""
    ours, told = rules
    return ours.but(f"{ours.name}, clock of 2012", entry_after_tick=1), told | {"entry_after_tick": 1}


def claims(pages, memory, told):
    """Per refault, by brute force: its access, R, whether memory + R pages keep it, the fewest extra pages that do."""
    distances = [event.distance for event in Reference(memory, **told).run(pages)]
    most = max(len(set(pages)) - memory, 0)  # extra pages with which everything fits

    @functools.cache
    def kept(extra):
        return [event.distance == -1 for event in Reference(memory + min(extra, most), **told).run(pages)]

    for i, distance in enumerate(distances):
        if distance >= 0:
            yield i, distance, kept(min(distance, most))[i], next(e for e in range(most + 1) if kept(e)[i])


def all_traces(length):
    """Every trace of that length, up to the names of its pages."""
    spelled = [""]
    for _ in range(length):
        spelled = [s + page for s in spelled for page in "ABCDEFGHIJ"[: len(set(s)) + 1]]
    return spelled


@pytest.mark.parametrize("rules", [*HOLDS, *FAILS.values(), looking_late(FIFO), looking_late(FOR_EVER)], ids=name_of)
@settings(deadline=None, max_examples=25)
@given(pages=page_lists, memory=memories)
def test_check_claim_is_what_brute_force_finds(rules, pages, memory):
    memory = min(memory, len(pages))
    table = check_claim(pages, memory, rules[0])
    columns = [table[column].tolist() for column in ("access", "R", "holds", "needed")]
    assert list(zip(*columns, strict=True)) == list(claims(pages, memory, rules[1]))
    assert table["page"].tolist() == [pages[i] for i in table["access"]]


@pytest.mark.parametrize("rules", HOLDS, ids=name_of)
@settings(deadline=None, max_examples=40)
@given(pages=page_lists, memory=memories)
def test_the_claim_holds_as_an_upper_bound(rules, pages, memory):
    table = check_claim(pages, min(memory, len(pages)), rules[0])
    assert table["holds"].all()
    assert (table["needed"] <= table["R"]).all()
    assert (table["needed"] >= 1).all()


@pytest.mark.parametrize("rules", HOLDS, ids=name_of)
def test_no_trace_of_up_to_seven_accesses_breaks_it_there(rules):
    for length in range(1, 8):
        for pages in all_traces(length):
            for memory in (1, 2, 3):
                assert all(holds for _, _, holds, _ in claims(pages, memory, rules[1])), (pages, memory)
    assert counterexample(rules[0], longest=6) is None


def test_the_claim_is_an_upper_bound_and_no_more():
    table = check_claim("ABCBCA", 1, "lru")
    assert table[["R", "needed"]].to_numpy().tolist() == [[1, 1], [1, 1], [4, 2]]


# Every shorter trace, and every trace of the same length in a smaller memory, is tried by brute force.
@pytest.mark.parametrize(("spelled", "rules"), FAILS.items(), ids=FAILS)
def test_the_least_that_breaks_it(spelled, rules):
    shorter = [pages for length in range(1, len(spelled)) for pages in all_traces(length)]
    assert all(holds for pages in shorter for memory in (1, 2, 3) for _, _, holds, _ in claims(pages, memory, rules[1]))
    assert not list(claims(spelled, 1, rules[1]))[-1][2]
    trace, memory = counterexample(rules[0])
    assert ("".join(trace.labels[trace.pages]), memory) == (spelled, 1)


@pytest.mark.parametrize("rules", [*HOLDS, *FAILS.values()], ids=name_of)
def test_the_clock_of_2012_is_off_by_one(rules):
    late = looking_late(rules)
    trace, memory = counterexample(late[0])
    assert ("".join(trace.labels[trace.pages]), memory) == ("ABA", 1)
    assert list(claims("ABA", 1, late[1])) == [(2, 0, False, 1)]


@pytest.mark.parametrize("rules", HOLDS, ids=name_of)
@settings(deadline=None, max_examples=20)
@given(pages=page_lists, memory=memories)
def test_with_the_clock_of_2012_one_page_more_is_enough(rules, pages, memory):
    table = check_claim(pages, min(memory, len(pages)), looking_late(rules)[0])
    assert (table["needed"] <= table["R"] + 1).all()


def test_fifo_breaks_the_claim_on_many_refaults_of_an_ordinary_trace():
    table = check_claim(traces.zipf(pages=120, n=3000, s=0.8, seed=1), 30, "fifo")
    assert 0.6 < table["holds"].mean() < 0.95
    assert 0.01 < (table["needed"] > table["R"]).mean() < 0.3


def test_nothing_to_claim_where_nothing_comes_back():
    assert check_claim("ABC", 1, "fifo").shape == (0, 5)
    assert check_claim("ABAB", 4, "lru").empty


def refused(said, call):
    with pytest.raises(BadInput, match=said):
        call()


def test_bad_input_is_named():
    for rules in ("balanced-2012", "proposal-2012", "opt"):
        refused(
            f"rules '{rules}': expected 'fifo', 'lru' or fixed_lists", lambda rules=rules: check_claim("ABA", 1, rules)
        )
    refused("unknown rules 'nope'", lambda: check_claim("ABA", 1, "nope"))
    refused("unknown rules 'nope'", lambda: counterexample("nope"))
    refused("memory is 0 pages", lambda: check_claim("ABA", 0))
    refused("memory is 4 pages, larger than the whole trace", lambda: check_claim("ABA", 4))
    refused("at least one access", lambda: check_claim([], 1))
    refused("active_pages is -1", lambda: fixed_lists(-1))
    for wrong in (0, -1, 11, 2.5, True, None, "3"):
        said = re.escape(f"is {wrong!r}, expected an integer from 1 to 10")
        refused(f"longest {said}", lambda wrong=wrong: counterexample(longest=wrong))
        refused(f"largest_memory {said}", lambda wrong=wrong: counterexample(largest_memory=wrong))


def demoted_by_hand(pages, memory):
    """What became of the pages that refaults demoted, told from the events and the lists alone."""
    m, trials, told = refault.Memory(memory, "proposal-2012"), [], []
    for page in pages:
        active = len(m.active)
        event = m.access(page)
        for trial in trials:
            if trial["page"] in event.activated and trial["now"] == "still inactive":
                trial["now"] = "reactivated"
            elif trial["page"] == page and trial["now"] == "evicted for good":
                trial["now"] = "evicted, read in again"
        if event.refault and event.distance < active:
            trials.append({"page": event.demoted[0], "now": "still inactive"})
        for trial in trials:
            if trial["page"] in event.evicted and trial["now"] == "still inactive":
                trial["now"] = "evicted for good"
        told = [trial["now"] for trial in trials]
    return {outcome: told.count(outcome) for outcome in OUTCOMES}


@given(st.lists(st.integers(0, 8), min_size=1, max_size=120), st.integers(1, 7))
def test_each_page_that_a_refault_demoted_has_one_outcome(pages, memory):
    assert refault.demotion_outcomes(pages, memory).to_dict() == demoted_by_hand(pages, memory)


def test_both_outcomes_of_the_article_occur():
    still_needed = refault.demotion_outcomes(traces.mix(400, 4000, 40_000, seed=1), 1000)
    shifted = refault.demotion_outcomes(traces.shift(850, 850), 1000)
    assert still_needed["reactivated"] > 0
    assert shifted.to_dict() == dict(zip(OUTCOMES, (0, 350, 0, 150), strict=True))
