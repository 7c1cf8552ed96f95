"""The pictures of the autofs story: what stands in them is compared with struct, with the recorded stream's facts, and
with bookkeeping of our own.
"""

import html
import itertools
import re
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernelnotes import recordings
from kernelnotes.autofs import Kernel, encode, history, make, outcomes
from kernelnotes.errors import BadInput
from kernelnotes.pipes import BytePipe, PacketPipe
from kernelnotes.views import autofs as pictures
from kernelnotes.views import timeline

HOSTILE = "<img src=x onerror=alert(1)>&\"'"


def packet(token, name):
    made = make("missing_indirect", token=token, dev=39, ino=221716, uid=0, gid=0, pid=17947, tgid=17947, name=name)
    return encode(made, "x86-64")


THREE = [packet(150 + k, name) for k, name in enumerate([b"alpha", b"beta", b"gamma"])]
LABELS = list(pictures.READINGS)


# A pipe, step by step -----------------------------------------------------------------------------------------------


def test_the_second_read_of_300_finds_protocol_0_and_the_type_5():
    steps = [step for step in pictures.film(THREE, pictures.READINGS[LABELS[0]]) if step.asked]
    stream = b"".join(THREE)
    heads = [struct.unpack("<iiI", stream[at : at + 12]) for at in (0, 300, 600)]
    assert heads == [(5, 3, 150), (0, 5, 3), (0, 0, 5)]
    for step, (proto, kind, token) in zip(steps, heads, strict=False):
        found = {field.name: field.found for field in pictures.decoded(step, THREE)}
        assert found["proto_version"] == str(proto)
        assert found["type"].split()[0] == str(kind)
        assert found["wait_queue_token"] == str(token)


def test_the_wrong_members_of_the_second_read_are_named_with_the_bytes_they_came_from():
    steps = [step for step in pictures.film(THREE, pictures.READINGS[LABELS[0]]) if step.asked]
    fields = {field.name: field for field in pictures.decoded(steps[1], THREE)}
    assert {name for name, field in fields.items() if not field.wrong} == {"uid", "gid", "tgid"}
    assert fields["proto_version"].bytes_of == "A 300–303"
    assert fields["type"].bytes_of == "B 0–3"
    assert fields["type"].found == "5 (missing_direct)"
    assert "type 5 (missing_direct) instead of 3 (missing_indirect)" in pictures.pipe_stepper(THREE).text


@pytest.mark.parametrize("label", [label for label in LABELS if label.startswith("packet")])
def test_nothing_is_wrong_behind_a_packet_pipe(label):
    steps = [step for step in pictures.film(THREE, pictures.READINGS[label]) if step.data]
    assert len(steps) == 3
    assert not any(field.wrong for step in steps for field in pictures.decoded(step, THREE))


@given(st.sampled_from([BytePipe, PacketPipe]), st.integers(44, 304), st.integers(1, 400), st.integers(1, 8))
@settings(max_examples=80, deadline=None)
def test_every_byte_is_taken_thrown_away_or_left_and_counted_once(pipe, written, asked, count):
    packets = [packet(k, b"x") for k in range(count)]
    gone = []
    for step in pictures.film(packets, pictures.Reading(pipe, written, asked))[count:]:
        gone += [*step.taken, *step.thrown]
        there = [*gone, *itertools.chain(*step.left)]
        bytes_of = [(piece.packet, piece.first + k) for piece in there for k in range(piece.size)]
        assert bytes_of == [(k, at) for k in range(count) for at in range(written)]
        wanted = b"".join(packets[p.packet][p.first : p.first + p.size] for p in step.taken)
        assert step.data == wanted


def test_a_read_that_gets_too_little_says_that_the_daemon_waits():
    for label, words in zip(
        LABELS,
        ("288 bytes are missing: it waits for more", "the daemon waits", "the daemon waits", "the daemon waits"),
        strict=True,
    ):
        assert words in pictures.film(THREE, pictures.READINGS[label])[-1].words()


def test_packets_that_are_too_short_or_too_many_are_refused():
    for packets in ([], [bytes(300)], THREE * 3):
        with pytest.raises(BadInput, match="packets of at least 304 bytes"):
            pictures.film(packets, pictures.READINGS[LABELS[0]])


# Who told whom what -------------------------------------------------------------------------------------------------

TALK = [
    pictures.Message(0.0, "process", "kernel", "stat beta"),
    pictures.Message(0.0012, "kernel", "daemon", "missing_indirect, token 7"),
    pictures.Message(0.002, "daemon", "daemon", "mounts tmpfs"),
    pictures.Message(0.003, "daemon", "kernel", "READY of 7", trouble=True),
]
ACTORS = ["process", "kernel", "daemon"]


def test_the_sequence_tells_every_message_in_words_and_draws_it():
    output = pictures.sequence(TALK, ACTORS)
    assert "1 ms, kernel to daemon: missing_indirect, token 7" in output.text
    for word in ("stat", "READY", "tmpfs", *ACTORS):
        assert word in output.html.split("<svg")[1]


def test_a_stranger_in_a_sequence_and_an_empty_one_are_refused():
    with pytest.raises(BadInput, match="daemon not among the actors process, kernel"):
        pictures.sequence(TALK, ACTORS[:2])
    with pytest.raises(BadInput, match="no messages"):
        pictures.sequence([], ACTORS)


# The matrix ---------------------------------------------------------------------------------------------------------

ALL = outcomes()


def cells_of(shown):
    """The cells of the first table in a piece of HTML, by row: [kernel, class of each cell]."""
    return [
        [re.sub("<.*?>", "", row.partition("</th>")[0]), *re.findall(r'<td class="kn-(\w+)"', row)]
        for row in shown.split("<tbody>")[1].split("</tbody>")[0].split("<tr>")[1:]
    ]


def test_only_the_packet_pipe_is_green_for_all_readers():
    # Facts: measured with real 32-bit readers on 6.18, 23 November 2026.
    assert cells_of(pictures.matrix(ALL).html) == [
        ["no fix", "bad", "bad", "ok", "ok"],
        ["Kent, 3.3-rc5", "ok", "ok", "bad", "ok"],
        ["Kent, 3.0.24", "ok", "ok", "bad", "bad"],
        ["comm check", "ok", "ok", "ok", "bad"],
        ["revert", "bad", "bad", "ok", "bad"],
        ["packet pipe", "ok", "ok", "ok", "ok"],
    ]
    for mode in ("32/32", "64/64"):
        assert {css for row in cells_of(pictures.matrix(ALL, mode).html) for css in row[1:]} == {"ok"}


def test_the_matrix_says_in_words_what_it_shows_in_colours():
    text = pictures.matrix(ALL, caption="Who is served").text
    assert "[matrix, model]" in text
    assert "Kent, 3.0.24: systemd ok, single read ok, automount 5.0.6 hang, automount 5.0.7 hang." in text


def test_a_requester_that_is_served_by_the_next_ones_request_is_marked_late():
    shown = pictures.matrix(ALL[(ALL["reader"] == "automount 5.0.6") & (ALL["kernel"] == "Kent, 3.0.24")]).html
    assert "1\u00a0late 2\u00a0✗ 3\u00a0✗" in shown


def test_the_log_of_a_cell_tells_the_second_read_and_who_hangs():
    explorer = pictures.cell_log(ALL)
    assert len(explorer.frames) == 24
    told = explorer.frames[0, 0]
    assert "protocol 0, type 5 (missing_direct), token 5. READY gives EINVAL" in told
    assert "Nobody answers processes 2 and 3." in told


def test_a_readers_own_fix_has_a_row_and_what_is_no_matrix_is_refused():
    mine = Kernel(HOSTILE, (3, 4), lambda task: 304)
    shown = pictures.matrix(outcomes(kernels=[mine])).html
    assert cells_of(shown)[0][1:] == ["bad", "bad", "ok", "bad"]
    assert "<img" not in shown
    with pytest.raises(BadInput, match="lacks kernel, reader"):
        pictures.matrix(ALL[["mode"]])
    with pytest.raises(BadInput, match="no cell with mode 16-on-64"):
        pictures.matrix(ALL, "16-on-64")


def test_a_32_bit_systemd_was_never_served_before_kents_patch_and_automount_always():
    # systemd's own read of 2010, systemd/systemd 01f78473b104: loop_read(pipe_fd, &packet, sizeof(packet)).
    told = zip((moment.date for moment in history.HISTORY), history.served(), strict=True)
    served = {date: now for date, now in told if date <= "2012-02"}
    assert served["2007-02-20"] == {"automount 5.0.6": True}
    assert served["2010"] == {"automount 5.0.6": True, "systemd": False}
    assert served["2012-02"] == {"automount 5.0.6": False, "systemd": True}
    lines = timeline(history.HISTORY, history.served()).text.splitlines()
    [shown] = [line for line in lines if line.startswith("2010 ")]
    assert shown.endswith("[automount 5.0.6 works, systemd fails]")


def test_in_2012_and_in_2023_never_both_daemons_were_served_without_the_flag():
    whole = [dict(zip(("date", "kernel"), (moment.date, moment.kernel), strict=True)) for moment in history.HISTORY]
    both = [len(now) == 2 and all(now.values()) for now in history.served()]
    first = next(k for k, moment in enumerate(whole) if moment["kernel"] == "packet pipe")
    lost = next(k for k, moment in enumerate(whole) if moment["date"] == "2023-10")
    assert not any(both[:first])
    assert all(both[first:lost])
    assert both[lost:] == [False, False, True]


# What a terminal showed ---------------------------------------------------------------------------------------------


def test_each_run_is_shown_with_its_own_command_and_the_mark_names_what_is_common():
    runs = {name: recordings.transcript(f"automount-i386{name}") for name in ("", "-unfixed", "-relay-old")}
    explorer = pictures.transcripts(runs, "Three runs")
    assert "recorded: Linux 6.18.44, 2026-11-23, Debian's autofs 5.1.8-2+deb12u2 for i386]" in explorer.text
    for frame, (name, run) in zip(explorer.frames.values(), runs.items(), strict=True):
        assert html.escape(run.provenance.command) in frame
        assert ("state D, autofs_wait" in frame) == bool(name)
    with pytest.raises(BadInput, match="1 given"):
        pictures.transcripts({"one": runs[""]}, "One run")
