"""Traces: what goes in comes out again, generators keep their promises, bad input is named and refused."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kernelnotes import traces
from kernelnotes.errors import BadInput
from kernelnotes.traces import Trace

numbers = st.lists(st.integers(0, 2**63 - 1) | st.integers(0, 9), min_size=1, max_size=60)
words = st.lists(st.text(max_size=3), min_size=1, max_size=60)

# One call of each generator, with every argument.
CALLS = {
    traces.cyclic: {"pages": 7, "laps": 3},
    traces.zipf: {"pages": 40, "n": 500, "s": 0.9, "seed": 3},
    traces.uniform: {"pages": 40, "n": 500, "seed": 3},
    traces.scan_over_hot: {"hot": 20, "scan": 100, "n": 500, "share": 0.4, "seed": 3},
    traces.shift: {"old": 6, "new": 9, "laps": 2, "passes": 3},
    traces.mix: {"loop": 30, "pages": 40, "n": 500, "s": 1.1, "share": 0.6, "seed": 3},
}
ARGUMENTS = [
    pytest.param(generator, name, id=f"{generator.__name__}-{name}") for generator in CALLS for name in CALLS[generator]
]


def named(trace):
    """The accesses by label, as a plain list."""
    return trace.labels[trace.pages].tolist()


@given(numbers | words)
@example(["a\0", "a", ""])
def test_a_trace_gives_back_the_pages_it_was_made_of(pages):
    trace = Trace.of(pages)
    assert named(trace) == pages
    assert (len(trace), trace.unique) == (len(pages), len(set(pages)))


@given(numbers | words)
def test_ids_are_dense_in_order_of_first_appearance(pages):
    trace = Trace.of(pages)
    assert trace.pages.dtype == np.int32
    assert trace.labels.tolist() == list(dict.fromkeys(pages))
    assert trace.pages.tolist() == [trace.labels.tolist().index(page) for page in pages]


@given(numbers | words, st.data())
def test_anonymous_pages_are_marked(pages, data):
    anon = data.draw(st.sets(st.sampled_from(pages)))
    trace = Trace.of(pages, anon=anon)
    assert set(trace.labels[trace.anon].tolist()) == anon
    assert set(Trace.of(pages, anon=np.array(sorted(anon), dtype=object)).labels[trace.anon].tolist()) == anon


@pytest.mark.parametrize(
    "same",
    [
        (3, 1, 3),
        iter([3, 1, 3]),
        np.array([3, 1, 3], dtype=np.uint8),
        np.array([3, 1, 3], dtype=object),
        [np.int8(3), 1, np.uint64(3)],
        pd.Series([3, 1, 3]),
    ],
    ids=lambda same: type(same).__name__,
)
def test_any_sequence_of_integers_will_do(same):
    assert named(Trace.of(same)) == [3, 1, 3]
    assert named(Trace.of(range(2))) == [0, 1]


@pytest.mark.parametrize("same", ["aba", ("a", "b", "a"), np.array(["a", "b", "a"]), pd.Series(["a", "b", "a"])])
def test_any_sequence_of_strings_will_do(same):
    trace = Trace.of(same)
    assert named(trace) == ["a", "b", "a"]
    assert {type(label) for label in trace.labels} == {str}


@given(words, words, st.data())
def test_a_trace_plus_a_trace_knows_its_pages_again(before, after, data):
    anon = data.draw(st.sets(st.sampled_from(before))), data.draw(st.sets(st.sampled_from(after)))
    both = Trace.of(before, "one", anon[0]) + Trace.of(after, "two", anon[1])
    assert named(both) == before + after
    assert set(both.labels[both.anon].tolist()) == anon[0] | anon[1]
    assert both.name == "one, then two"
    assert named(Trace.of(before) + after) == before + after


def test_a_trace_is_shown_by_size_and_not_by_its_accesses():
    trace = traces.cyclic(pages=1000, laps=2)
    assert repr(trace) == "<Trace cyclic(1000 pages, 2 laps): 2,000 accesses to 1,000 pages (model)>"
    renamed = trace.renamed("laps")
    assert (renamed.name, renamed.pages is trace.pages) == ("laps", True)
    assert traces.as_trace(trace) is trace


# --- Generators. ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("generator", CALLS, ids=lambda generator: generator.__name__)
def test_the_same_arguments_give_the_same_trace(generator):
    arguments = CALLS[generator]
    one, two = generator(**arguments), generator(**arguments)
    assert named(one) == named(two)
    assert (one.name, one.provenance.kind, one.anon.any()) == (two.name, "model", False)
    if "seed" in arguments:
        assert named(generator(**arguments | {"seed": 4})) != named(one)
        assert len(one) == arguments["n"]


def test_cyclic_goes_through_the_pages_lap_by_lap():
    assert named(traces.cyclic(pages=3, laps=2)) == [0, 1, 2, 0, 1, 2]


def test_shift_leaves_the_old_pages_for_good():
    assert named(traces.shift(old=2, new=3, laps=2, passes=2)) == [0, 1, 0, 1, 2, 3, 4, 2, 3, 4]


# Bounds on chi-square are its mean, the degrees of freedom, plus five standard deviations.
def chi_square(counted, expected):
    return ((counted - expected) ** 2 / expected).sum(), len(expected) - 1 + 5 * np.sqrt(2 * (len(expected) - 1))


@pytest.mark.parametrize("s", [0, 0.7, 1.0, 1.4])
def test_zipf_counts_fall_with_the_rank_to_the_power_s(s):
    pages, n = 50, 100_000
    counted = np.bincount(named(traces.zipf(pages, n, s=s, seed=1)), minlength=pages)
    expected = 1 / np.arange(1, pages + 1) ** s
    got, most = chi_square(np.sort(counted)[::-1], n * expected / expected.sum())
    assert got < most


def test_zipf_ranks_are_not_page_numbers():
    assert np.argmax(np.bincount(named(traces.zipf(100, 5000, seed=1)))) != 0
    favourites = {np.argmax(np.bincount(named(traces.zipf(100, 5000, seed=seed)))) for seed in range(8)}
    assert len(favourites) > 4


def test_uniform_counts_are_level():
    counted = np.bincount(named(traces.uniform(64, 64_000, seed=2)), minlength=64)
    got, most = chi_square(counted, np.full(64, 1000.0))
    assert len(counted) == 64
    assert got < most


def test_a_scan_uses_each_of_its_pages_once_and_in_order():
    pages = np.array(named(traces.scan_over_hot(hot=50, scan=300, n=4000, share=0.3, seed=5)))
    scanned = np.flatnonzero(pages >= 50)
    assert pages[scanned].tolist() == list(range(50, 350))
    assert 0.25 < 300 / (scanned[-1] + 1) < 0.35  # the share, until the scan is through
    got, most = chi_square(np.bincount(pages[pages < 50], minlength=50), np.full(50, 3700 / 50))
    assert got < most


def test_a_scan_longer_than_the_trace_stops_with_it():
    assert named(traces.scan_over_hot(hot=3, scan=100, n=5, share=1)) == [3, 4, 5, 6, 7]
    assert max(named(traces.scan_over_hot(hot=3, scan=100, n=50, share=0))) < 3


def test_mix_loops_in_order_and_draws_the_rest_from_zipf():
    pages = np.array(named(traces.mix(loop=40, pages=30, n=60_000, s=1.0, share=0.75, seed=6)))
    looped = pages[pages < 40]
    assert looped.tolist() == [i % 40 for i in range(len(looped))]
    assert abs(len(looped) / 60_000 - 0.75) < 0.01
    counted = np.sort(np.bincount(pages[pages >= 40] - 40, minlength=30))[::-1]
    expected = 1 / np.arange(1, 31)
    got, most = chi_square(counted, counted.sum() * expected / expected.sum())
    assert got < most


# --- Bad input: a BadInput that names it. -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pages", "said"),
    [
        ([], r"it is empty, expected at least one access"),
        ("", r"at least one access"),
        (np.array([], dtype=int), r"at least one access"),
        ([3, -1], r"access 1 is to page -1, expected page numbers >= 0"),
        (np.array([0, 5, -7]), r"access 2 is to page -7"),
        ([2**63], r"page 9223372036854775808 is out of range"),
        (np.array([2**63], dtype=np.uint64), r"page 9223372036854775808 is out of range"),
        ([2**64, 1], r"page 18446744073709551616 is out of range"),
        ([1, -(2**70)], r"page -1180591620717411303424 is out of range"),
        ([1.0], r"page 1.0 is a float"),
        ([1, 2.5], r"page 2.5 is a float"),
        (np.array([1.5]), r"page .*1.5.* is a float"),
        ([float("nan")], r"page nan is a float"),
        (pd.Series([1, None]), r"page .*1.0.* is a float"),
        ([True], r"page True is a bool"),
        ([1, True], r"page True is a bool"),
        (np.array([False]), r"page .*False.* is a bool"),
        ([[1, 2]], r"page \[1, 2\] is a list"),
        ([1, (2,)], r"page \(2,\) is a tuple"),
        (np.zeros((2, 3), dtype=int), r"flat sequence, got shape \(2, 3\)"),
        (np.zeros((2, 3)), r"flat sequence .* got ndarray"),
        (pd.DataFrame({"page": [1, 2]}), r"flat sequence .* got DataFrame"),
        ([1, "a"], r"page 'a' is a str"),
        (["a", 1], r"page 'a' is a str"),
        (np.array([1, "a"], dtype=object), r"page 'a' is a str"),
        (["a", None], r"page 'a' is a str, expected integers >= 0, or strings throughout"),
        ([None, 1], r"page None is a NoneType"),
        (pd.Series([1, None], dtype="Int64"), r"page <NA>"),
        (np.array(["2012-05-02"], dtype="datetime64[D]"), r"page .*2012.* is a date"),
        ([1j], r"page 1j is a complex"),
        ([b"a"], r"page b'a' is a bytes"),
        (None, r"expected a sequence of page numbers, got NoneType None"),
        (5, r"expected a sequence of page numbers, got int 5"),
        (np.array(5), r"got shape \(\)"),
        ({1, 2}, r"flat sequence .* got set"),
        ({1: 2}, r"flat sequence .* got dict"),
    ],
    ids=lambda value: None if isinstance(value, np.ndarray) else repr(value)[:30],
)
def test_what_is_no_trace_is_refused_by_name(pages, said):
    with pytest.raises(BadInput, match=said) as refused:
        Trace.of(pages, name="my pages")
    assert str(refused.value).startswith("my pages: ")
    with pytest.raises(BadInput, match=said):
        traces.cyclic(2, 2) + pages


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), min_size=1), st.data())
def test_a_trace_knows_how_each_page_was_accessed(accesses, data):
    pages, ways = zip(*accesses, strict=True)
    trace = Trace.of(pages, mapped=ways)
    assert (trace.mapped.tolist() or [traces.READ] * len(pages)) == list(ways)
    both = (trace + np.array([3, 3])).mapped.tolist()
    assert both == ([*ways, 0, 0] if any(ways) else [])
    assert Trace.of(pages, mapped=traces.MAPPED).mapped.tolist() == [1] * len(pages)


@pytest.mark.parametrize("mapped", [3, -1, [0], [0, 0, 3], "*", [0.5, 0, 0], None, [[0, 0, 0]]])
def test_an_unknown_way_to_a_page_is_refused(mapped):
    with pytest.raises(BadInput, match=r"my pages: mapped is .*, expected READ, MAPPED or EXECUTABLE, for all or for"):
        Trace.of([1, 2, 3], "my pages", mapped=mapped)
    parts = {"labels": np.array([7, 8]), "anon": np.zeros(2, dtype=bool), "name": "by hand"}
    for wrong in (np.zeros(2, dtype=np.uint8), np.zeros(3), np.full(3, 3, dtype=np.uint8)):
        with pytest.raises(BadInput, match=r"by hand: mapped"):
            Trace(pages=np.array([0, 1, 0], dtype=np.int32), mapped=wrong, **parts)


def test_ids_beyond_the_labels_are_refused_when_a_trace_is_put_together_by_hand():
    parts = {"labels": np.array([7, 8]), "anon": np.zeros(2, dtype=bool), "name": "by hand"}
    assert named(Trace(pages=np.array([0, 1, 0], dtype=np.int32), **parts)) == [7, 8, 7]
    for ids in ([0, 2], [-1, 0], [2**30]):
        with pytest.raises(BadInput, match="by hand: expected ids below 2"):
            Trace(pages=np.array(ids, dtype=np.int32), **parts)
    for ids in (np.array([0, 1]), np.zeros((1, 1), dtype=np.int32), np.zeros(0, dtype=np.int32)):
        with pytest.raises(BadInput, match="by hand: expected a flat int32 array"):
            Trace(pages=ids, **parts)
    with pytest.raises(BadInput, match="as many anon"):
        Trace(pages=np.array([0], dtype=np.int32), **parts | {"anon": np.zeros(1, dtype=bool)})


@pytest.mark.parametrize(
    ("anon", "said"),
    [
        ([9], "anonymous page 9 does not occur"),
        ([1, "x"], "anonymous page 'x' does not occur"),
        (["1"], "anonymous page '1' does not occur"),
        ([None], "anonymous page None does not occur"),
        ([2**70], f"anonymous page {2**70} does not occur"),
        (5, "anon is 5, expected a collection"),
        (None, "anon is None, expected a collection"),
        ([[1]], r"anon is \[\[1\]\], expected a collection"),
    ],
    ids=repr,
)
def test_anonymous_pages_must_be_pages_of_the_trace(anon, said):
    with pytest.raises(BadInput, match=said) as refused:
        Trace.of([1, 2], name="my pages", anon=anon)
    assert str(refused.value).startswith("my pages: ")


BAD = {
    "count": (0, -1, 1.5, np.float64(2), True, None, "3", [1], 2**31, float("nan"), float("inf")),
    "s": (-0.1, 10.1, float("nan"), float("inf"), True, None, "1", [1], 1j),
    "share": (-0.1, 1.1, float("nan"), True, None, "1", [1], 1j),
    "seed": (-1, 1.5, np.float64(2), True, None, "3", [1], float("nan")),
}


@pytest.mark.parametrize(("generator", "argument"), ARGUMENTS)
def test_generators_refuse_each_argument_out_of_range(generator, argument):
    for value in BAD.get(argument, BAD["count"]):
        with pytest.raises(BadInput, match=rf"\b{argument} is {re.escape(repr(value))}, expected"):
            generator(**CALLS[generator] | {argument: value})


@pytest.mark.parametrize(("generator", "argument"), ARGUMENTS)
def test_generators_take_integers_of_numpy(generator, argument):
    arguments = CALLS[generator] | {argument: 1}
    assert named(generator(**arguments | {argument: np.int32(1)})) == named(generator(**arguments))


def test_a_trace_too_long_to_number_is_refused():
    with pytest.raises(BadInput, match=r"pages \* laps is 1099511627776"):
        traces.cyclic(pages=2**20, laps=2**20)
    with pytest.raises(BadInput, match=r"new \* passes is 1099511627776"):
        traces.shift(old=1, new=2**20, passes=2**20)
