"""`kernelnotes refault`: replay, curve, measure, record; and recordings beside the model."""

import json
import os
import subprocess
import sys

import pytest

from kernelnotes import recordings, refault, traces
from kernelnotes.errors import BadInput
from kernelnotes.provenance import Provenance
from kernelnotes.recordings import ADD, DELETE, DELETE_FOREIGN, FLUSH, GET_PAGES, File

TRACE = traces.mix(loop=700, pages=1500, n=20_000, seed=2)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "t.oracleGeneral.zst"
    traces.write(TRACE, path)
    return str(path)


def run(*arguments, status=0):
    command = [sys.executable, "-m", "kernelnotes.cli", "refault", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert ran.returncode == status, ran.stderr
    return ran


def test_replay_prints_what_replay_returns(file):
    rows = json.loads(
        run("replay", file, "--memory", "600", "--rules", "lru", "--rules", "linux-6.18", "--json").stdout
    )
    for row, rules in zip(rows, ("lru", "linux-6.18"), strict=True):
        told = refault.replay(TRACE, 600, rules, keep="counts")
        assert row == told.summary() | {"miss_ratio": told.miss_ratio}
    table = run("replay", file, "--memory", "600", "--rules", "arc").stdout
    assert "20,000 accesses, memory 600 pages (model)" in table
    assert table.splitlines()[-1].split()[:2] == ["arc", f"{refault.replay(TRACE, 600, 'arc').faults:,}"]


def test_curve_prints_a_row_per_size(file):
    rows = json.loads(run("curve", file, "--size", "100", "--size", "900", "--json").stdout)
    lru = [refault.replay(TRACE, size, "lru", keep="counts").miss_ratio for size in (100, 900)]
    assert [(row["memory"], row["miss_ratio"]) for row in rows] == [(100, lru[0]), (900, lru[1])]
    assert len(run("curve", file).stdout.splitlines()) == 22


def test_bad_input_is_one_line_and_status_2(tmp_path, file):
    wrong = tmp_path / "wrong"
    wrong.write_text("no trace\n")
    for arguments, said in (
        (("replay", str(wrong), "--memory", "5"), "no trace that is known here"),
        (("replay", str(tmp_path / "missing"), "--memory", "5"), "No such file or directory"),
        (("replay", file, "--memory", "0"), "Invalid value for"),
        (("replay", file, "--memory", "5", "--rules", "best"), "unknown rules 'best'"),
        (("curve", file, "--sample", "7.5"), "a sample of 7.5"),
        (("curve", file, "--format", "vscsi"), "format is 'vscsi'"),
    ):
        ran = run(*arguments, status=2)
        assert said in ran.stderr
        assert ran.stdout == ""


@pytest.mark.needs("cgroup memory")
def test_measure_prints_both_sides(file):
    found = json.loads(run("measure", file, "--memory", "600", "--sample", "512", "--json").stdout)
    assert found["origin"].startswith("live: Linux ")
    low, high = found["predicted"]["faults"]
    assert low == high
    assert abs(found["measured"]["faults"] - low) <= max(0.05 * low, 200)
    assert "linux-6.18 (model)" in run("measure", file, "--memory", "600").stdout


@pytest.mark.needs("cgroup memory", "filemap events")
def test_record_writes_a_recording_and_compares_it(tmp_path):
    (tmp_path / "data").write_bytes(os.urandom(4096 * 300))
    output = tmp_path / "r.gz"
    command = (
        "--cold",
        str(tmp_path / "data"),
        "--json",
        "--",
        "sh",
        "-c",
        f"cat {tmp_path}/data {tmp_path}/data >/dev/null",
    )
    found = json.loads(run("record", "-o", str(output), *command).stdout)
    assert found["lost"] == 0
    assert found["brought in"]["kernel"] >= 300
    assert len(recordings.read(output)) > 0
    assert "there is no folder" in run("record", "-o", str(tmp_path / "no" / "r"), "--", "true", status=2).stderr


# --- A recording beside the model. ------------------------------------------------------------------------------------

ORIGIN = Provenance("recorded", "Linux 6.18", "made up", "2026-11-27")


def recorded(*events, memory=100):
    return recordings.from_events(events, provenance=ORIGIN, memory=memory, page_size=4096, files=(File("f", 50),))


def test_what_fits_is_brought_in_once_on_both_sides():
    frame = refault.against(recorded((ADD, 0, 0, 9), (GET_PAGES, 0, 0, 9), (GET_PAGES, 0, 0, 9)))
    assert frame["kernel"].tolist() == frame["model"].tolist() == [10, 0, 0]
    assert frame.loc["brought in", "error"] == 0


def test_pages_that_were_there_before_are_left_out_and_linux_is_told_of_readahead():
    events = ((GET_PAGES, 0, 20, 29), (ADD, 0, 0, 9), (GET_PAGES, 0, 0, 4), (FLUSH, -1, 0, 0))
    frame = refault.against(recorded(*events))
    assert frame["kernel"].tolist() == frame["model"].tolist() == [10, 0, 0]
    frame = refault.against(recorded(*events), "lru", memory=5)
    assert frame["model"].tolist() == [5, 0, 0]
    assert frame.loc["brought in", "error"] == -0.5


def test_what_others_evicted_is_told_to_the_model():
    before = (ADD, 0, 0, 39), (GET_PAGES, 0, 0, 39)  # more than a batch holds
    frame = refault.against(recorded(*before, (DELETE_FOREIGN, 0, 3, 4), (ADD, 0, 3, 4), (GET_PAGES, 0, 0, 9)))
    assert frame["kernel"].tolist() == frame["model"].tolist() == [42, 2, 2]
    assert frame.attrs["provenance"].over == ORIGIN


@pytest.mark.parametrize(("name", "most"), [("source-tree", 0.02), ("sqlite-lookups", 0.09)])
def test_recorded_programs_are_predicted_to_some_percent_and_by_no_other_rules(name, most):
    recording = recordings.load(name)
    errors = refault.against(recording)["error"].abs()
    assert (errors < most).all()
    without = refault.RULES["linux-6.18"].without("refault activation")
    for other in (without, "proposal-2012-patch"):
        assert (refault.against(recording, other)["error"].abs() > 1.5 * errors).all()
    assert (refault.against(recordings.load("source-tree"), "lru", memory=2000)["model"] > 0).all()


def test_a_recording_without_accesses_is_refused():
    with pytest.raises(BadInput, match="no accesses to pages that were brought in"):
        refault.against(recorded((GET_PAGES, 0, 0, 9), (DELETE, 0, 0, 9)))
