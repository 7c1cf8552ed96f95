"""A trace in parts gives what it gives whole."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernelnotes import curves, refault, traces
from kernelnotes.errors import BadInput
from kernelnotes.refault import replays
from kernelnotes.traces.chunks import Numbering

RULES = [name for name in refault.RULES if name != "opt"]
TRACE = traces.mix(loop=700, pages=1500, n=20_000, seed=2)


def parts_of(trace, size):
    labels = trace.labels[trace.pages]
    return (labels[i : i + size] for i in range(0, len(labels), size))


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("size", [997, 50_000])
def test_replay_in_parts_counts_the_same(rules, size):
    whole = refault.replay(TRACE, 600, rules, keep="counts")
    in_parts = refault.replay(parts_of(TRACE, size), 600, rules)
    assert in_parts.summary() == whole.summary()
    assert len(in_parts.series) == -(-len(TRACE) // size)
    assert in_parts.series["faults"].iloc[-1] == whole.faults
    assert len(in_parts.distances) == 0


@pytest.mark.parametrize("rules", ["arc", "linux-6.18", "proposal-2012"])
def test_without_numba_too(rules, monkeypatch):
    trace = traces.zipf(300, 2000, seed=1)
    whole = refault.replay(trace, 50, rules, keep="counts")
    monkeypatch.setattr(replays, "have_numba", lambda: False)
    replays._runner.cache_clear()
    assert refault.replay(parts_of(trace, 311), 50, rules).summary() == whole.summary()
    replays._runner.cache_clear()


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 300), min_size=2, max_size=200), st.integers(1, 60), st.integers(1, 30))
def test_parts_of_any_size(pages, size, memory):
    memory = min(memory, len(pages))
    trace = traces.Trace.of(pages)
    for rules, flushes in (("balanced-2012", None), ("linux-6.18", range(0, 200, 7))):
        try:
            whole = refault.replay(trace, memory, rules, keep="counts", flushes=flushes)
        except BadInput:  # too small for what cannot be reclaimed
            continue
        assert refault.replay(parts_of(trace, size), memory, rules, flushes=flushes).summary() == whole.summary()
    assert np.array_equal(curves.reuse_distances(parts_of(trace, size)), curves.reuse_distances(trace))
    pd.testing.assert_frame_equal(curves.miss_ratio(parts_of(trace, size)), curves.miss_ratio(trace))


def test_a_file_is_replayed_and_measured_in_parts(tmp_path):
    traces.write(TRACE, tmp_path / "t.oracleGeneral.zst")
    chunks = traces.open(tmp_path / "t.oracleGeneral.zst", chunk=1000)
    assert refault.replay(chunks, 600).faults == refault.replay(TRACE, 600).faults
    for sample in (1, 0.3, 500):
        pd.testing.assert_frame_equal(curves.miss_ratio(chunks, sample=sample), curves.miss_ratio(TRACE, sample=sample))


def test_a_sample_of_so_many_pages_is_near_the_whole():
    trace = traces.zipf(20_000, 200_000, s=0.9, seed=1)
    sizes = [500, 2000, 8000]
    exact, near = curves.miss_ratio(trace, sizes), curves.miss_ratio(trace, sizes, sample=3000)
    assert (near["miss_ratio"] - exact["miss_ratio"]).abs().max() < 0.03
    assert (near["error"] > 0).any()
    everything = curves.miss_ratio(trace, sizes, sample=10**6)
    assert np.allclose(everything["miss_ratio"], exact["miss_ratio"])


def test_what_needs_the_whole_says_so():
    with pytest.raises(BadInput, match="'opt' looks into the future: expected a Trace"):
        refault.replay(parts_of(TRACE, 100), 50, "opt")
    with pytest.raises(BadInput, match="it is empty"):
        refault.replay(iter([]), 50)
    with pytest.raises(BadInput, match="it is empty"):
        curves.miss_ratio(traces.Chunks([]))
    with pytest.raises(
        BadInput, match=r"a sample of 2.5, expected a share above 0 and at most 1, or a number of pages"
    ):
        curves.miss_ratio("ABC", sample=2.5)


LABELS = st.one_of(st.integers(0, 40), st.integers(0, 5000), st.integers(0, 2**64 - 1))


@settings(deadline=None, max_examples=200)
@given(st.lists(st.lists(LABELS, min_size=1, max_size=60), min_size=1, max_size=8), st.integers(1, 30))
def test_pages_are_numbered_in_order_of_appearance_whatever_they_are_called(parts, repeats):
    numbering, ids = Numbering("parts"), {}
    for part in [*parts, *[list(range(3000))] * (repeats % 2), *parts]:
        dtype = np.uint64 if max(part) >= 2**63 else np.int64
        numbers = numbering.number(np.array(part, dtype=dtype)).tolist()
        assert numbers == [ids.setdefault(label, len(ids)) for label in part]
        assert len(numbering) == len(ids)
    assert numbering.labels.tolist() == list(ids)


def test_small_labels_that_become_large_ones_and_more_are_numbered_on():
    numbering, ids = Numbering("parts"), {}
    for labels in (range(1000), range(500, 3000), [2**62, 5], range(200_000), range(0, 10**9, 10**6), [7, 2999]):
        given = np.array(labels, dtype=np.int64)
        assert numbering.number(given).tolist() == [ids.setdefault(label, len(ids)) for label in given.tolist()]
