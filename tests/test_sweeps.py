"""A sweep gives the same table wherever it runs: here, in processes, in threads, on a Dask cluster."""

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from kernelnotes import refault, traces
from kernelnotes.errors import BadInput
from kernelnotes.refault import sweeps

TRACES = {
    "zipf": traces.zipf(2000, 20_000, seed=1),
    "files": traces.Trace.of([f"f{n % 37}" for n in range(500)], anon=["f3"]),
}
SIZES, RULES = [20, 300], ["lru", "linux-6.18", refault.RULES["proposal-2012"].but("mine", inactive_share=10)]


@pytest.fixture(scope="module")
def expected():
    return refault.sweep(TRACES, SIZES, RULES, executor="none")


def test_several_traces_are_told_apart(expected):
    assert expected["trace"].tolist() == ["zipf"] * 6 + ["files"] * 6
    assert expected.attrs["trace"] == ", ".join(trace.name for trace in TRACES.values())
    alone = refault.sweep(TRACES["files"], SIZES, RULES)
    pd.testing.assert_frame_equal(
        expected[expected["trace"] == "files"].drop(columns="trace").reset_index(drop=True), alone, check_like=True
    )


def temporary():
    import tempfile

    return set(Path(tempfile.gettempdir()).glob("kernelnotes-*"))


@pytest.mark.parametrize("executor", ["processes", ThreadPoolExecutor, ProcessPoolExecutor])
def test_processes_and_threads_say_the_same(executor, expected):
    before = temporary()
    if isinstance(executor, str):
        found = refault.sweep(TRACES, SIZES, RULES, executor=executor)
    else:
        with executor(2) as pool:
            found = refault.sweep(TRACES, SIZES, RULES, executor=pool)
    pd.testing.assert_frame_equal(found, expected)
    assert temporary() == before


def test_much_to_do_is_given_to_processes_and_little_is_not(monkeypatch, expected):
    used = []
    monkeypatch.setattr(sweeps, "WORTH_IT", 1000)
    pool = sweeps.ProcessPoolExecutor
    monkeypatch.setattr(sweeps, "ProcessPoolExecutor", lambda *a, **k: used.append(1) or pool(*a, **k))
    pd.testing.assert_frame_equal(refault.sweep(TRACES, SIZES, RULES), expected)
    assert used == [1]
    monkeypatch.setattr(sweeps, "WORTH_IT", 10**9)
    refault.sweep(TRACES, SIZES, RULES)
    assert used == [1]


def test_a_rule_that_cannot_be_sent_is_run_here(monkeypatch):
    monkeypatch.setattr(sweeps, "WORTH_IT", 1)

    def step(m, rules, page):
        return refault.lru(m, rules, page)

    mine = refault.Rules("mine", step, refault.Choices(entry_after_tick=0))
    found = refault.sweep(TRACES["zipf"], [20, 300], [mine, "lru"])
    assert found["faults"].tolist()[:2] == found["faults"].tolist()[2:]


def test_a_dask_cluster_says_the_same_and_gets_each_trace_once(monkeypatch, expected):
    from dask.distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        sent, scatter = [], client.scatter
        monkeypatch.setattr(client, "scatter", lambda data, **k: sent.append(len(data)) or scatter(data, **k))
        for executor in (client, client.get_executor()):
            pd.testing.assert_frame_equal(refault.sweep(TRACES, SIZES, RULES, executor=executor), expected)
        assert sent == [2, 2]
        with pytest.raises(BadInput, match="unknown rules"):
            refault.sweep(TRACES, SIZES, ["nope"], executor=client)


def test_what_is_no_executor_is_refused():
    for wrong in (7, "threads", object()):
        with pytest.raises(BadInput, match=r"executor is .*, expected a concurrent.futures Executor, 'processes'"):
            refault.sweep(TRACES, SIZES, RULES, executor=wrong)
    with pytest.raises(BadInput, match="trace is empty"):
        refault.sweep({}, SIZES, RULES)
