"""The recorded scenes tell what the facts measured, and the reads of a pipe are those of the manual page."""

import json
import re

import pytest

from kernelnotes.autofs import scenes
from kernelnotes.errors import BadInput
from kernelnotes.provenance import MODEL

EXPERIMENTS = {
    "a short read": ([304, 304], [300, 300, 300]),
    "a long read": ([304] * 3, [4096] * 4),
    "too little": ([300], [304, 4]),
    "a page": ([5000], [5000, 5000]),
    "single bytes": ([304, 10], [1, 1, 1]),
}


def test_a_packet_pipe_gives_a_packet_for_each_read_and_a_plain_one_bytes():
    # Measured on Linux 6.18 with pipe2(2), 23 November 2026.
    frame = scenes.pipe_reads(EXPERIMENTS).map(lambda text: text.replace("\u00a0", " "))
    assert frame["plain"].to_list() == [
        "300 A; 4 A + 296 B; 8 B",
        "304 A + 304 B + 304 C; waits; waits; waits",
        "300 A; waits",
        "5000 A; waits",
        "1 A; 1 A; 1 A",
    ]
    assert frame["packets"].to_list() == [
        "300 A; 300 B; waits",
        "304 A; 304 B; 304 C; waits",
        "300 A; waits",
        "4096 A; 904 A",
        "1 A; 1 B; waits",
    ]


def test_without_the_flag_the_recorded_kernel_showed_type_5_and_two_processes_hung():
    frame = scenes.recorded_steps()
    assert frame.attrs["provenance"].kind == "recorded"
    fixed, unfixed = (frame[frame["pipe"] == pipe] for pipe in ("with the flag", "flag cleared"))
    assert set(fixed["answer"]) == {"accepted"}
    assert unfixed["type"].to_list() == ["3, missing_indirect", "5, missing_direct", "0, missing"]
    assert unfixed["protocol"].to_list() == [5, 0, 0]
    assert unfixed["token"].to_list()[1:] == ["3", "5"]
    assert unfixed["process"].to_list() == ["answered"] + ["in autofs_wait"] * 2


def test_the_recorded_visit_ends_as_it_began():
    log = scenes.recorded_visit()
    assert log.provenance.kind == "recorded"
    told = [(event.what, event.name) for event in log.events]
    once = [("missing", "alice"), ("mount", "alice"), ("ready", "alice")]
    assert told[1:4] == once
    assert told[4:6] == [("missing", "bob"), ("fail", "bob")]
    assert told[6:9] == [("expire", "alice"), ("unmount", "alice"), ("ready", "alice")]
    assert told[9:12] == once
    assert [what for what, _ in told[12:]] == ["catatonic", "unmount", "end"]


def test_a_log_survives_json():
    log = scenes.recorded_visit()
    again = json.loads(json.dumps([{k: getattr(event, k) for k in event.__slots__} for event in log.events]))
    assert scenes.log(again, log.provenance) == log


@pytest.mark.parametrize("name", ["visit", "lose_step"])
def test_no_recorded_scene_names_a_folder_of_the_machine_it_was_played_on(name):
    stored, _ = scenes._stored()
    assert set(re.findall(r"/\w[\w/.-]*", json.dumps(stored[name]))) <= {"/mnt/auto", "/mnt/src"}


def test_a_scene_whose_reads_were_short_is_refused():
    row = {"packets": True, "bytes": 8, "proto": 5, "type": 3, "token": 1, "answer": "accepted", "process": "answered"}
    with pytest.raises(BadInput, match=r"reads of \[8\] bytes, expected 300 each"):
        scenes.steps([row], MODEL)
