"""The data behind a chart's link: what the chart draws, and what the result it was made of says."""

import io
import re
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest

from kernelnotes import autofs, cdecl, curves, layout, recordings, refault, traces
from kernelnotes.provenance import MODEL
from kernelnotes.recordings.runs import kernel_runs
from kernelnotes.repair import scenes
from kernelnotes.views import autofs as packets
from kernelnotes.views import kernel as beside
from kernelnotes.views import layout as layouts
from kernelnotes.views import output, show
from kernelnotes.views import refault as pictures
from kernelnotes.views import repair as connections


def data(shown):
    """The table behind the one link of an output."""
    [link] = re.findall(
        r'<a class="kn-csv" download="[a-z0-9-]+\.csv" [^>]*href="data:text/csv;[^,]*,([^"]*)"', shown.html
    )
    return pd.read_csv(io.StringIO(unquote(link)))


SHIFT = traces.shift(85, 85)
MEASURED = [traces.cyclic(4915, 6).name, traces.shift(3000, 3000, 6, 10).name]


@pytest.fixture(scope="module")
def replays():
    return [refault.replay(SHIFT, 100, rules) for rules in ("balanced-2012", "proposal-2012")]


def test_the_lengths_of_the_lists(replays):
    found = data(pictures.lengths(replays))
    for replay in replays:
        rows = found[found["panel"] == replay.rules.name].drop(columns="panel").reset_index(drop=True)
        pd.testing.assert_frame_equal(rows, replay.series[list(rows)].reset_index(drop=True), check_dtype=False)
        assert rows["faults"].iloc[-1] == replay.faults
    twice = data(pictures.lengths([replays[0]] * 2, titles=["one", "two"]))
    assert (twice["panel"] == "one").sum() == (twice["panel"] == "two").sum() == len(twice) / 2


def test_a_series_of_many_samples_is_thinned_from_its_first_to_its_last():
    replay = refault.replay(SHIFT.pages.tolist() * 3, 100, "lru", points=3 * len(SHIFT))
    found = data(pictures.lengths([replay]))
    assert len(found) == pictures.MOST_ROWS < len(replay.series)
    assert len(data(pictures.lengths([replay] * 3))) == 3 * (pictures.MOST_ROWS // 3)
    assert found["access"].iloc[[0, -1]].tolist() == replay.series["access"].iloc[[0, -1]].tolist()


def test_the_matrix_and_the_bytes():
    frame = autofs.outcomes()
    found = data(packets.matrix(frame, "32-on-64"))
    wanted = frame[(frame["mode"] == "32-on-64") & (frame["schedule"] == "sequential")]
    assert (
        found[["kernel", "reader", "verdict"]].values.tolist()
        == wanted[["kernel", "reader", "verdict"]].values.tolist()
    )
    assert found["answered"].astype(str).str.fullmatch(r"nan|[123. ]+").all()
    foo = cdecl.parse("struct foo { __u32 a; __u64 b; };")["struct foo"]
    found = data(layouts.byte_map([layout.layout(foo, name) for name in ("i386", "x86-64")]))
    assert found[found["member"] == "b"]["offset"].tolist() == [4, 8]
    assert found["layout"].unique().tolist() == ["struct foo on i386", "struct foo on x86-64"]


def test_the_distances(replays):
    replay = refault.replay(SHIFT, 100, "proposal-2012", points=len(SHIFT))
    found = data(pictures.distances(replay))
    where = np.flatnonzero(replay.distances >= 0)
    assert set(found["access"]) <= set(where)
    assert len(found) >= min(len(where), 250)
    assert found["access"].is_monotonic_increasing
    assert (replay.distances[found["access"]] == found["R"]).all()


def test_a_sweep_and_a_tradeoff():
    frame = refault.sweep(SHIFT, [50, 100, 150], ["lru", "opt"])
    found = data(pictures.sweep(frame, "miss_ratio", "Misses"))
    pd.testing.assert_frame_equal(found, frame[["rules", "memory", "miss_ratio"]], check_dtype=False, rtol=1e-6)
    rows = [("a", share, 10 * share, 1000 - share) for share in (10, 50)]
    frame = pd.DataFrame(rows, columns=["trace", "inactive_share", "refaults", "soft_faults"])
    pd.testing.assert_frame_equal(data(pictures.tradeoff(frame)), frame)


def test_model_and_kernel():
    runs = kernel_runs()[:6]
    told = refault.predictions(runs, progress=False)
    found = data(beside.errors(told))
    assert len(found) == len(runs)
    np.testing.assert_allclose(found["error in misses, %"], 100 * told["error_misses"])
    line = pd.Series([5, 7], index=[100, 200])
    found = data(beside.moments({"shift": line}, {"shift": [(150, 6)]}, MODEL))
    assert found.values.tolist() == [
        ["shift", "model", 100, 5],
        ["shift", "model", 200, 7],
        ["shift", "kernel", 150, 6],
    ]


def test_the_ablation_in_percent():
    rows = {"nothing": (0.001, 0.002, 0.003, 0.004), "batches": (0.1, 0.2, 0.3, 0.4)}
    columns = pd.MultiIndex.from_product([["unwatched", "sampled"], ["misses", "refaults"]])
    table = pd.DataFrame.from_dict(rows, "index")
    table.columns = columns
    found = data(beside.ablation(table)).set_index("without")
    assert found.loc["batches"].tolist() == [20, 40]
    assert found.index.tolist() == ["batches", "nothing"]


def test_curves_and_reaches():
    trace = traces.zipf(200, 2000, seed=1)
    frames = {"exact": curves.miss_ratio(trace), "sampled": curves.miss_ratio(trace, sample=0.5)}
    found = data(beside.curve(frames))
    rows = found[found["curve"] == "exact"]
    assert rows["memory"].tolist() == frames["exact"].index.tolist()
    np.testing.assert_allclose(rows["miss_ratio"], frames["exact"]["miss_ratio"], rtol=1e-6)
    assert found[found["curve"] == "sampled"]["error"].notna().all()
    told = pd.DataFrame({"rules": "lru", "reuse": [3, 4], "R": [1, 2]})
    pd.testing.assert_frame_equal(data(beside.reaches(told, 2)), told.assign(memory=2))
    many = pd.concat([told] * 1000, ignore_index=True)
    assert 400 <= len(data(beside.reaches(many, 2))) <= 600


def test_a_census_and_a_table_that_is_searched():
    hazards = [("linux/x_y.h:1", "tail padding"), ("linux/x_y.h:9", "tail padding"), ("linux/z.h:3", "interior shift")]
    frame = pd.DataFrame(hazards, columns=["header", "kind"])
    rows = [["linux/x_y.h", "tail padding", 2], ["linux/z.h", "interior shift", 1]]
    assert data(layouts.census(frame)).values.tolist() == rows
    pd.testing.assert_frame_equal(data(layouts.searchable(frame, "Headers")), frame)


def test_what_a_kernel_counted_beside_the_band():
    counted = [recordings.measured(name, 0) for name in MEASURED]
    bands = [pd.DataFrame({"faults": [10, 30, 20]}), pd.DataFrame({"faults": [5]})]
    found = data(beside.beside(counted, bands))
    assert found["faults measured"].tolist() == [one.faults for one in counted]
    assert found[["least told", "most told"]].values.tolist() == [[10, 30], [5, 5]]


def test_a_move_and_clocks():
    move = scenes.move()
    found = data(connections.time_sequence(move, "A move"))
    sent = [p for p in move.packets if p.sender in (scenes.OLD, scenes.NEW)]
    steps = found[found["what"].str.match(r"\d: ")]
    assert steps["what"].tolist() == [f"{k}: {mark.what}" for k, mark in enumerate(move.marks, 1)]
    found = found.drop(steps.index)
    assert found["what"].value_counts().to_dict() == {
        "sent by the old host": sum(p.sender == scenes.OLD for p in sent),
        "sent by the new host": sum(p.sender == scenes.NEW for p in sent),
        "acknowledged": len(move.packets) - len(sent),
    }
    found = data(connections.clocks(scenes.skipped(), ["nothing"]))
    assert found["trial"].unique().tolist() == ["nothing"]
    assert found["seconds"].is_monotonic_increasing
    assert found["units since the first"].iloc[0] == 0


def test_what_is_too_much_for_a_link_has_none():
    figure = pictures.fate(refault.replay(SHIFT, 100, "lru")).picture
    big = pd.DataFrame({"n": range(output.MOST_CSV)})
    assert 'class="kn-csv"' not in show(figure, "Some words", data=big).html
    assert 'class="kn-csv"' not in show("<p>no data</p>", "Some words").html
