"""Many replays: sizes x rules x traces, on one processor, on all of a machine, or on a cluster."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import pickle
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from kernelnotes.errors import BadInput
from kernelnotes.provenance import Provenance
from kernelnotes.refault.replays import listed, model_of, replay
from kernelnotes.refault.rules import Rules, check_memory, rule_set
from kernelnotes.traces import Chunks, Trace, TraceLike, as_trace

WORTH_IT = 300_000_000  # accesses in all: with fewer, other processes take longer to start than the work takes


def sweep(
    trace: TraceLike | Mapping[str, TraceLike],
    memory: Sequence[int],
    rules: Sequence[str | Rules],
    executor: Any = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Replay `trace` at every size in `memory` (pages) under every one of `rules`, counts only.

    trace : one, or several by name
    executor : any concurrent.futures Executor, a Dask Client or its executor; "processes" for one process per
        processor, "none" for none; by default processes if there is much to do and several processors, on Linux.
        A trace is sent to each process or Dask worker once, not with every replay
    progress : show a bar on a terminal
    Returns a DataFrame with a row per replay, sizes within rules within traces: the columns of Replay.summary() and
    `miss_ratio`, and `trace` if several were given; its `attrs` hold the name of the `trace` and the `provenance`.
    Raises BadInput as `replay` does, before the first replay.

    >>> frame = refault.sweep("ABCABCABC", [2, 3], ["lru", "opt"])
    >>> frame[["rules", "memory", "faults"]].to_dict("list")
    {'rules': ['lru', 'lru', 'opt', 'opt'], 'memory': [2, 3, 2, 3], 'faults': [9, 3, 6, 3]}
    """
    several = isinstance(trace, Mapping)
    given: Mapping[str, TraceLike] = trace if isinstance(trace, Mapping) else {"": trace}
    traces = {str(name): _whole(one) for name, one in given.items()}
    if not traces:
        raise BadInput("trace is empty, expected at least one")
    sizes, chosen = listed("memory", memory), [rule_set(name) for name in listed("rules", rules)]
    tasks = [
        (name, rules, check_memory(size, len(one)))
        for name, one in traces.items()
        for rules in chosen
        for size in sizes
    ]
    with _runner(executor, traces, tasks) as run:
        shown = tqdm(run(tasks), total=len(tasks), desc="sweep", unit="replay", disable=None if progress else True)
        frame = pd.DataFrame(shown)
    if several:
        frame.insert(0, "trace", [name for name, _, _ in tasks])
    origins = [model_of(one) for one in traces.values()]
    names = ", ".join(one.name for one in traces.values())
    frame.attrs = {"trace": names, "provenance": functools.reduce(Provenance.joined, origins)}
    return frame


_Task = tuple[str, Rules, int]


def _whole(trace: TraceLike) -> Trace:
    return trace.trace() if isinstance(trace, Chunks) else as_trace(trace)


def _one(trace: Trace, rules: Rules, memory: int) -> dict[str, Any]:
    told = replay(trace, memory, rules, keep="counts")
    return told.summary() | {"miss_ratio": told.miss_ratio}


@contextlib.contextmanager
def _runner(executor: Any, traces: Mapping[str, Trace], tasks: Sequence[_Task]) -> Iterator[Any]:
    """A function from tasks to their rows, in order."""
    client = executor if hasattr(executor, "scatter") else getattr(executor, "_client", None)
    if executor == "none" or (executor is None and not _worth_it(traces, tasks)):
        yield lambda some: (_one(traces[name], rules, memory) for name, rules, memory in some)
    elif executor is None or executor == "processes":
        context = multiprocessing.get_context("fork" if executor is None else None)
        with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool, _sent(traces) as parcels:
            try:
                yield functools.partial(_submitted, pool, parcels)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
    elif client is not None:
        # hash=False: by its content a trace would have the name that the sweep before has just given up
        scattered = client.scatter(list(traces.values()), broadcast=True, hash=False)
        futures = dict(zip(traces, scattered, strict=True))
        yield functools.partial(_on_dask, client, futures)
    elif not isinstance(executor, Executor) and not hasattr(executor, "submit"):
        raise BadInput(f"executor is {executor!r}, expected a concurrent.futures Executor, 'processes' or 'none'")
    elif isinstance(executor, ThreadPoolExecutor):
        yield functools.partial(_submitted, executor, traces)
    else:
        with _sent(traces) as parcels:
            yield functools.partial(_submitted, executor, parcels)


def _worth_it(traces: Mapping[str, Trace], tasks: Sequence[_Task]) -> bool:
    work = sum(len(traces[name]) for name, _, _ in tasks)
    if work < WORTH_IT or len(tasks) < 2 or (os.cpu_count() or 1) < 2:
        return False
    if "fork" not in multiprocessing.get_all_start_methods():
        return False
    with contextlib.suppress(Exception):  # a rule of one's own may be a function that cannot be sent
        pickle.dumps([rules for _, rules, _ in tasks])
        return True
    return False


def _submitted(executor: Any, traces: Mapping[str, Any], tasks: Sequence[_Task]) -> Iterator[dict[str, Any]]:
    futures = [executor.submit(_unpacked_one, traces[name], rules, memory) for name, rules, memory in tasks]
    try:
        for future in futures:
            yield future.result()
    finally:
        for future in futures:
            future.cancel()


def _on_dask(client: Any, traces: Mapping[str, Any], tasks: Sequence[_Task]) -> Iterator[dict[str, Any]]:
    futures = [client.submit(_one, traces[name], rules, memory, pure=False) for name, rules, memory in tasks]
    try:
        for future in futures:
            yield future.result()
    finally:
        client.cancel(futures)


# --- A trace in files, for processes of the same machine: each maps it once. ------------------------------------------


class _Parcel(NamedTuple):
    folder: str
    trace: Trace  # without its arrays


@contextlib.contextmanager
def _sent(traces: Mapping[str, Trace]) -> Iterator[dict[str, _Parcel]]:
    with tempfile.TemporaryDirectory(prefix="kernelnotes-") as top:
        parcels = {}
        for number, (name, trace) in enumerate(traces.items()):
            folder = Path(top, str(number))
            folder.mkdir()
            labels = trace.labels if trace.labels.dtype.kind in "iu" else np.arange(trace.unique)
            for what, array in (("pages", trace.pages), ("labels", labels), ("anon", trace.anon)):
                np.save(folder / f"{what}.npy", array, allow_pickle=False)
            bare = Trace.of([0], trace.name, provenance=trace.provenance)
            parcels[name] = _Parcel(str(folder), bare)
        yield parcels


@functools.lru_cache(maxsize=4)
def _mapped(folder: str) -> dict[str, Any]:
    # "c": an array that cannot be written would be another type, and everything be compiled again
    files = {what: Path(folder, f"{what}.npy") for what in ("pages", "labels", "anon")}
    return {what: np.asarray(np.load(file, mmap_mode="c", allow_pickle=False)) for what, file in files.items()}


def _unpacked_one(trace: Trace | _Parcel, rules: Rules, memory: int) -> dict[str, Any]:
    if isinstance(trace, _Parcel):
        trace = replace(trace.trace, **_mapped(trace.folder))
    return _one(trace, rules, memory)
