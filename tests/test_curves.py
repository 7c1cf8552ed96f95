"""Reuse distances against a list that is searched, curves against a replay of LRU per size, samples against both."""

import sys

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernelnotes import curves, intrinsics, refault, traces
from kernelnotes.errors import BadInput


def searched(pages):
    """The same by a list of pages, latest first."""
    stack, found = [], []
    for page in pages:
        found.append(stack.index(page) if page in stack else curves.COLD)
        if page in stack:
            stack.remove(page)
        stack.insert(0, page)
    return found


intrinsics.register()
ACCESSES = st.lists(st.integers(0, 40), min_size=1, max_size=300)


@given(ACCESSES)
@settings(max_examples=300, deadline=None)
def test_a_distance_is_the_number_of_other_pages_in_between(pages):
    assert curves.reuse_distances(pages).tolist() == searched(pages)


# 600 pages: a window of 1,201 positions; 3,000 pages: three groups of them and a part.
LONG = {
    "moved together many times": traces.zipf(600, 20_000, 0.9, seed=3) + traces.cyclic(500, 10),
    "several groups": traces.cyclic(3000, 2) + traces.uniform(3000, 3000, seed=4),
}


@pytest.mark.parametrize("name", LONG)
def test_nothing_is_lost_in_a_long_trace(name):
    pages = LONG[name].pages
    assert curves.reuse_distances(pages).tolist() == searched(pages.tolist())


def test_stretches_of_the_window_are_counted_in_full():
    pages = 150_000  # more positions than one stretch has
    distances = curves.reuse_distances(traces.cyclic(pages, 3))
    assert distances[pages:].tolist() == [pages - 1] * 2 * pages
    back = np.concatenate([np.arange(pages), np.arange(pages)[::-1]])
    assert curves.reuse_distances(back)[pages:].tolist() == list(range(pages))


def test_compiled_or_not_the_distances_are_the_same(monkeypatch):
    pages = (traces.zipf(300, 3000, 1.0, seed=2) + traces.cyclic(3000, 1)).pages
    compiled, curve = curves.reuse_distances(pages), curves.miss_ratio(pages)
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setattr(curves, "have_numba", lambda: False)
    assert curves.reuse_distances(pages).tolist() == compiled.tolist()
    assert curves.miss_ratio(pages).equals(curve)


@numba.njit
def both(word, array, index):
    intrinsics.one_less_behind(array, index)
    return intrinsics.ones(word)


@given(st.integers(0, 2**32 - 1), st.integers(0, 127), st.sampled_from([np.int16, np.int32]))
@settings(max_examples=50, deadline=None)
def test_what_a_processor_does_at_once_is_what_python_does(word, index, dtype):
    compiled, interpreted = (np.arange(128, dtype=dtype) for _ in range(2))
    assert both(np.uint32(word), compiled, index) == intrinsics.ones(word) == word.bit_count()
    intrinsics.one_less_behind(interpreted, index)
    assert compiled.tolist() == interpreted.tolist()


@given(ACCESSES)
@settings(max_examples=60, deadline=None)
def test_a_curve_has_the_misses_of_lru_at_every_size(pages):
    sizes = range(1, 45)
    curve = curves.miss_ratio(pages, sizes)["miss_ratio"]
    for memory in sizes:
        pages_there = len(set(pages))  # in a larger memory nothing is evicted, and replay says so
        faults = refault.replay(pages, memory, "lru", keep="counts").faults if memory <= pages_there else pages_there
        assert curve[memory] == faults / len(pages)


def test_without_sizes_a_curve_has_all_at_which_it_changes():
    trace = traces.zipf(500, 5000, 1.0, seed=1)
    curve, every = curves.miss_ratio(trace)["miss_ratio"], curves.miss_ratio(trace, range(1, 600))["miss_ratio"]
    assert curve.index.is_monotonic_increasing
    assert (curve.diff().dropna() < 0).all()
    assert every.nunique() == len(curve)
    assert curve.iloc[-1] == trace.unique / len(trace)


def test_libcachesim_counts_the_same_misses():
    from libcachesim import LRU, Request

    trace = traces.zipf(2000, 30_000, 0.8, seed=5)
    sizes = [50, 300, 1500]
    curve = curves.miss_ratio(trace, sizes)["miss_ratio"]
    for memory in sizes:
        cache, misses = LRU(memory), 0
        for page in trace.pages.tolist():
            request = Request()
            request.obj_id, request.obj_size = page, 1
            misses += not cache.get(request)
        assert curve[memory] == misses / len(trace)


@pytest.mark.parametrize(("sample", "most"), [(0.5, 0.006), (0.2, 0.02)])
def test_a_sample_is_near_the_exact_curve_and_knows_how_near(sample, most):
    trace, sizes = traces.zipf(20_000, 300_000, 0.7, seed=4), list(range(200, 20_000, 200))
    exact = curves.miss_ratio(trace, sizes)["miss_ratio"]
    estimate = curves.miss_ratio(trace, sizes, sample=sample)
    off = (estimate["miss_ratio"] - exact).abs()
    assert off.mean() < most
    assert (off < 3 * estimate["error"] + 0.002).mean() > 0.9
    assert estimate["error"].mean() < 3 * most


def test_a_sampled_curve_never_rises_and_stays_a_share():
    estimate = curves.miss_ratio(traces.zipf(5000, 60_000, 1.0, seed=1), sample=0.2)["miss_ratio"]
    assert (estimate.diff().dropna() <= 0).all()
    assert estimate.between(0, 1).all()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"trace": []}, "empty"),
        ({"trace": "ABC", "sizes": []}, "at least one size"),
        ({"trace": "ABC", "sizes": [0]}, "from 1 up"),
        ({"trace": "ABC", "sizes": [1.5]}, "from 1 up"),
        ({"trace": "ABC", "sample": 0}, "above 0"),
        ({"trace": "ABC", "sample": 1.1}, "at most 1"),
        ({"trace": "ABC", "sample": float("nan")}, "above 0"),
        ({"trace": "ABC", "sample": 0.5}, "too small"),
    ],
)
def test_bad_input_is_named(arguments, problem):
    with pytest.raises(BadInput, match=problem):
        curves.miss_ratio(**arguments)


def test_distances_fit_into_an_array_of_the_traces_length():
    distances = curves.reuse_distances("ABCA")
    assert (distances.dtype, distances.shape) == (np.dtype(np.int64), (4,))
    assert distances.tolist() == [-1, -1, -1, 2]
