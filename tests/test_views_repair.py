"""The pictures of connections: what stands in them is compared with the snapshots and packets they are made of."""

import re
from dataclasses import replace

import pytest
from connections import snapshots
from hypothesis import given, settings

from kernelnotes.errors import BadInput
from kernelnotes.provenance import MODEL
from kernelnotes.repair import Snapshot, TcpState, restore_steps, scenes
from kernelnotes.repair.scenes import HERE, NEW, OLD, PEER, Done, Mark, Passed
from kernelnotes.repair.segment import Flags, Segment
from kernelnotes.views import repair as pictures

HOSTILE = "<img src=x onerror=alert(1)>&\"'"


@pytest.fixture(scope="module")
def told():
    return {name: getattr(scenes, name)() for name in ("life", "steps", "skipped", "states", "move")}


# ------------------------------------------------------------------------------------- both streams


@given(snapshots())
@settings(max_examples=200, deadline=None)
def test_the_parts_of_both_streams_lie_end_to_end_and_are_as_long_as_the_queues(s):
    received, sent = pictures.streams(s)
    for stream in (received, sent):
        at = 0
        for part in stream.parts:
            if part.length:
                assert part.start == at
            at += part.length
        assert stream.end == at
    assert [part.length for part in received.parts] == [0, len(s.recv_queue), s.fin_received]
    assert [part.length for part in sent.parts] == [0, len(s.send_queue) - s.unsent, s.unsent, s.fin_queued]
    for stream, start, names in (
        (received, s.copied_seq, ("copied_seq", "recv_end", "rcv_nxt")),
        (sent, s.send_start, ("snd_una", "unsent_seq", "send_end", "write_seq")),
    ):
        shown = {name: at for at, several in stream.numbers.items() for name in several.split(" = ")}
        assert shown == {name: (getattr(s, name) - start + 2**31) % 2**32 - 2**31 for name in names}


def test_a_connection_is_told_in_words_with_every_number():
    s = Snapshot(
        state=TcpState.TCP_CLOSE_WAIT, family=2, local=("192.0.2.1", 1), peer=("192.0.2.2", 2), rcv_nxt=11,
        recv_queue=b"0123456789", write_seq=2**32 - 1, send_queue=b"abcdef", unsent=2,
    )  # fmt: skip
    shown = pictures.connection(s, caption="two streams")
    assert "10 bytes not read yet, a FIN" in shown.text
    assert "4 bytes sent, not acknowledged, 2 bytes never sent" in shown.text
    for number in ("copied_seq 0", "recv_end 10", "rcv_nxt 11", "snd_una 4,294,967,289", "unsent_seq 4,294,967,293"):
        assert number in shown.text
    assert "TCP_CLOSE_WAIT" in shown.html
    assert "two streams" in shown.html


def test_a_life_has_a_frame_for_each_event_which_says_what_happened(told):
    life = told["life"]
    shown = pictures.life(life)
    assert len(shown.frames) == len(life.moments)
    for k, (what, _) in enumerate(life.moments):
        assert what[1:] in shown.frames[k,]
    assert "recorded: Linux" in shown.text
    assert life.moments[-1].what in shown.text


def test_a_state_shows_its_streams_and_what_became_of_them(told):
    shown = pictures.states(told["states"])
    assert len(shown.frames) == 8
    for frame, one in zip(shown.frames.values(), told["states"].moved, strict=True):
        assert f"Restored: state {one.after}; {one.arrived:,} of {one.expected:,} bytes" in frame
        assert "each in its place; 0 resets" in frame


# ------------------------------------------------------------------------------------- steps


def test_calls_are_numbered_in_their_order():
    done = [Done("first", "getsockopt(A)", "1"), Done(HOSTILE, "setsockopt(B)", "")]
    shown = pictures.calls(done, "two calls", MODEL)
    assert shown.text.index("first") < shown.text.index("setsockopt(B)")
    assert "<img" not in shown.html


def test_the_steps_of_each_state_are_those_of_the_plan(told):
    shown = pictures.steps_by_state(told["states"])
    for frame, one in zip(shown.frames.values(), told["states"].moved, strict=True):
        kept = {name: value for name, value in one.snapshot.options.items() if name in ("SO_SNDBUF", "SO_RCVBUF")}
        steps = restore_steps(replace(one.snapshot, options=kept))
        assert frame.count("<tr") == len(steps) + 1
        assert f"{len(steps)} steps for " in frame
    assert "beyond those of ESTABLISHED: our FIN" in shown.text or "the peer" in shown.text


def test_every_packet_is_counted_in_the_stage_in_which_it_passed(told):
    shown = pictures.stages(told["steps"]).html
    counts = [int(number) for number in re.findall(r"<td[^>]*>(\d+)</td>", shown)]
    assert sum(counts) == len(told["steps"].packets)
    assert counts[:-1] == [0] * (len(told["steps"].marks) - 1)


# ------------------------------------------------------------------------------------- packets


def packet(at, sender, receiver, seq, length=0, flags=Flags.ACK, ack=0):
    ports = (1, 2) if sender == HERE else (2, 1)
    return Passed(at, sender, receiver, Segment(
        src=sender, dst=receiver, sport=ports[0], dport=ports[1], seq=seq % 2**32, ack=ack, flags=flags, cut=length
    ))  # fmt: skip


TALK = [
    packet(0.001, HERE, PEER, 2**32 - 10, 100),
    packet(0.002, HERE, PEER, 90, 50, Flags.ACK | Flags.PSH),
    packet(0.004, PEER, HERE, 7, flags=Flags.RST),
]
MARKS = [Mark(0.0, "begins"), Mark(0.003, HOSTILE)]


def test_packets_and_marks_come_in_their_order_numbered_from_the_first():
    said = [pictures.in_words(event) for event in pictures.events(TALK, MARKS)]
    assert said == [
        "begins",
        "here to peer: ACK, seq 0, ack 0, 100 bytes",
        "here to peer: PSH ACK, seq 100, ack 0, 50 bytes",
        HOSTILE,
        "peer to here: RST, seq 7",  # from what the other end had acknowledged
    ]
    drawn = pictures.sequence(TALK, MARKS, (HERE, PEER))
    assert "1.000 ms, here to peer: ACK, seq 0" in drawn.text
    assert "<img" not in drawn.html


def test_a_film_has_a_frame_for_each_event():
    film = pictures.packet_film(TALK, MARKS, (HERE, PEER), "a film", seen=3)
    assert len(film.frames) == 5
    assert "4.000 ms: peer to here: RST" in film.frames[4,]


def test_where_there_is_nothing_to_show_that_is_said():
    with pytest.raises(BadInput, match="no packets and no marks"):
        pictures.sequence([], [], (HERE, PEER))
    with pytest.raises(BadInput, match="1 events, expected at least 2"):
        pictures.packet_film([], MARKS[:1], (HERE, PEER), "nothing")


# ------------------------------------------------------------------------------------- trials and moves


def test_each_trial_is_shown_with_its_verdict(told):
    skipped = told["skipped"]
    shown = pictures.trials(skipped)
    for frame, trial in zip(shown.frames.values(), skipped.trials, strict=True):
        assert f"Outcome: {trial.verdict}." in frame
        assert f"{trial.said[HERE]}, {trial.heard[PEER]}" in frame
    table = pictures.trials_table(skipped).text
    for trial in skipped.trials:
        assert trial.name in table
    assert "EPIPE" in table


def test_the_clocks_of_two_trials_are_told_apart(told):
    names = ["nothing", "the clock of the time stamps, an odd number"]
    units = [
        int(n.replace(",", "")) for n in re.findall(r"([\d,]+) units", pictures.clocks(told["skipped"], names).text)
    ]
    assert units[1] > 500 * units[0]
    silent = told["skipped"]._replace(trials=(told["skipped"].trials[0]._replace(packets=()),))
    with pytest.raises(BadInput, match="no time stamps"):
        pictures.clocks(silent, ["nothing"])


def test_the_time_sequence_counts_the_packets_of_the_new_host_and_names_the_steps(told):
    move = told["move"]
    shown = pictures.time_sequence(move, "A move.")
    new = sum(p.sender == NEW for p in move.packets)
    assert f"of these {new} sent by the new host" in shown.text
    for k, mark in enumerate(move.marks, 1):
        assert f"{k}: {mark.what}" in shown.html
    with pytest.raises(BadInput, match="the host that sends"):
        pictures.time_sequence(move._replace(packets=()))


def test_around_a_move_are_the_packets_before_within_and_after(told):
    packets, marks = pictures.around(told["move"], before=3, after=10)
    start, end = marks[0].at, marks[-1].at
    assert sum(p.at < start for p in packets) == 3
    within = sum(start <= p.at <= end for p in told["move"].packets)
    assert sum(start <= p.at <= end for p in packets) == within
    assert {p.sender for p in packets} == {OLD, PEER, NEW}


def test_each_move_is_a_row(told):
    shown = pictures.moves(told["move"]).text
    for one in told["move"].moves:
        assert f"{one.queued:,}" in shown or str(one.queued) in shown
        assert f"{one.frozen_ms:.2f}" in shown
