"""Recorded sessions: today's code makes the calls that were recorded, in that order, and gets the same connection."""

import contextlib
import dataclasses
import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernelnotes.errors import BadInput
from kernelnotes.repair import Diverged, session
from kernelnotes.repair.segment import Flags, signed


@pytest.mark.parametrize("name", session.names())
def test_the_code_of_today_makes_the_recorded_calls(name):
    replayed = session.replay(name)
    assert replayed.provenance.kind == "recorded"
    state = replayed.snapshot.state.name.removeprefix("TCP_").lower().replace("_", "-")
    assert name.startswith(state)


@pytest.mark.parametrize("name", ["established-ipv4", "established-ipv6"])
def test_the_packets_of_a_session_agree_with_its_snapshot(name):
    snapshot = session.replay(name).snapshot
    host, port = snapshot.peer[:2]
    packets = session.load(name).packets
    ours = [p for p in packets if (p.src, p.sport) == (host, port)]  # what the peer sent
    # The peer's last byte that was acknowledged before the move is rcv_nxt; nothing it sent later was in the snapshot.
    assert any(p.end == snapshot.rcv_nxt for p in ours)
    theirs = [p for p in packets if (p.dst, p.dport) == (host, port)]
    assert any(p.flags & Flags.ACK and p.ack == snapshot.rcv_nxt for p in theirs)
    assert max(signed(p.end - snapshot.snd_una) for p in theirs) >= len(snapshot.send_queue)


def test_another_order_of_calls_is_told():
    recorded = session.load("established-ipv4")
    calls = list(recorded.calls)
    calls[5], calls[6] = calls[6], calls[5]
    with pytest.raises(Diverged, match="established-ipv4: call"):
        session.replay(dataclasses.replace(recorded, calls=tuple(calls)))


@pytest.mark.parametrize("name", session.names())
def test_a_session_goes_through_its_file_unchanged(name):
    recorded = session.load(name)
    assert session.from_bytes(session.to_bytes(recorded)) == recorded


def test_an_unknown_name_is_told_with_the_known_ones():
    with pytest.raises(BadInput, match=r"session 'estab' is unknown, known are: close-ipv4"):
        session.load("estab")


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_a_damaged_file_is_refused_or_read(data):
    whole = gzip.decompress(session.to_bytes(session.load("close-ipv4")))
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = whole[:at] + data.draw(st.sampled_from((b"", b"\0", b"}", b'"', b"9"))) + whole[at + 1 :]
    with contextlib.suppress(BadInput):  # and nothing else: a digit may have become another digit
        session.from_bytes(gzip.compress(damaged))
