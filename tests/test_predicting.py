"""Predictions of recorded runs as tables, what each detail is worth, and the pictures of both."""

import numpy as np
import pandas as pd
import pytest

from kernelnotes import recordings, refault, traces
from kernelnotes.errors import BadInput
from kernelnotes.provenance import MODEL
from kernelnotes.recordings.measurements import as_dict
from kernelnotes.recordings.runs import kernel_runs
from kernelnotes.views import kernel as pictures

RUNS = kernel_runs()


@pytest.fixture(scope="module")
def told():
    return refault.predictions(RUNS)


def test_a_row_per_run_with_errors_within_the_promise(told):
    assert len(told) == 76
    assert told["error_misses"].abs().max() <= 0.005
    assert told["error_refaults"].abs().max() <= 0.01
    assert told["error_activations"].abs().max() <= 0.03
    assert told.loc[told["misses"] < 500, "error_misses"].isna().all()
    assert told.attrs["provenance"].over == RUNS[0].provenance


def test_untold_of_flushes_the_shifts_go_wrong(told):
    blind = refault.predictions([run for run in RUNS if run.workload == "shift"], flushes=False)
    assert blind["error_refaults"].abs().max() > 0.2
    with pytest.raises(BadInput, match="there are no runs"):
        refault.predictions([])


def test_without_a_detail_the_worst_run_is_further_off(told):
    some = [run for run in RUNS if run.workload in ("shift", "zipf")]
    table = refault.ablation(some, ["stale statistics", "batches"], progress=False)
    assert table.index.tolist() == ["nothing", "stale statistics", "batches", "evictions by others", "all of these"]
    worst = table[("unwatched", "refaults")]
    assert worst["nothing"] < 0.01 < worst["batches"] < worst["stale statistics"]
    assert worst["all of these"] > 0.5
    picture = str(pictures.ablation(table))
    assert "stale statistics" in picture
    with pytest.raises(BadInput, match="no column 'hits'"):
        pictures.ablation(table, "hits")


def test_pictures_say_in_words_what_they_show(told):
    assert "Errors of the prediction in 76 runs of 6 workloads" in str(pictures.errors(told))
    line = {"a": pd.Series([5, 9], index=[10, 20])}
    words = str(pictures.moments(line, {"a": [(12, 6)]}, MODEL))
    assert "the model says 5 to 9; counted were 6 with a flush before access 12" in words
    curve = pd.DataFrame({"miss_ratio": [1.0, 0.25], "error": [0.0, 0.1]}, index=[1, 100])
    assert "from 1.00 at 1 pages to 0.25 at 100" in str(pictures.curve({"x": curve}))
    frame = pd.DataFrame({"rules": ["lru"] * 3, "reuse": [12, 13, 30], "R": [2, 9, 3]})
    assert "in 67 percent of 3 refaults" in str(pictures.reaches(frame, 10))


def test_a_stored_measurement_is_what_was_measured():
    trace = traces.shift(3000, 3000, 6, 10)
    watched, unwatched = recordings.measured(trace.name, 512), recordings.measured(trace.name)
    assert watched.provenance.kind == "recorded"
    [told] = watched.predicted(trace).to_dict("records")
    assert abs(told["faults"] / watched.faults - 1) <= 0.03
    band = unwatched.predicted(trace, phases=20)["faults"]
    assert 0.98 * band.min() <= unwatched.faults <= 1.02 * band.max()
    assert as_dict(watched)["refaults"] == watched.refaults
    words = str(pictures.beside([unwatched], [unwatched.predicted(trace, phases=5)]))
    assert f"shift: measured {unwatched.faults:,}" in words
    with pytest.raises(BadInput, match="'nothing' with sample=0 is unknown, known are with 0 and 512: cyclic"):
        recordings.measured("nothing")
    with pytest.raises(BadInput, match="phases is 0"):
        watched.predicted(trace, phases=0)


def test_every_choice_of_linux_has_words():
    for name in ("proposal-2012-patch", "linux-3.15", "linux-6.18"):
        words = refault.in_words(refault.RULES[name].choices)
        assert len(words) == 14
        assert all(isinstance(word, str) and word for word in words.values())
    today = refault.in_words(refault.RULES["linux-6.18"].choices)
    assert today["pages put on a list at once"] == "31"
    assert np.unique(list(today)).size == len(today)
