"""A connection at rest: its relations against two streams counted in plain integers, and contradictions refused."""

import pickle
import time
from dataclasses import FrozenInstanceError, fields, replace

import pytest
from connections import ADDRESSES, FIN, SYN, Connection, Stream, connections, snapshots, words
from hypothesis import given
from hypothesis import strategies as st

from kernelnotes.errors import BadInput
from kernelnotes.repair import STATES, Snapshot, TcpOption, TcpState, Window, check, restore_steps
from kernelnotes.repair.constants import AF_INET6, REPAIR_OPT

# ------------------------------------------------------------------------------------- relations


@given(connections, st.booleans())
def test_the_receive_stream_is_where_a_count_without_wrapping_says(connection, closing):
    s, received = connection.snapshot(closing), connection.received
    data_end = len(received.items) - received.fin
    assert s.fin_received == received.fin
    assert s.recv_end == received.number(data_end)
    assert s.copied_seq == received.number(min(received.gone, data_end))


@given(connections, st.booleans())
def test_the_send_stream_is_where_a_count_without_wrapping_says(connection, closing):
    s, sent = connection.snapshot(closing), connection.sent
    data_end = len(sent.items) - sent.fin
    assert (s.fin_queued, s.fin_acked) == (sent.fin, sent.fin_gone)
    assert s.send_end == sent.number(data_end)
    assert s.send_start == sent.number(min(sent.gone, data_end))
    assert s.snd_una == sent.number(sent.gone)
    assert s.unsent_seq == sent.number(min(sent.moved, data_end))


@given(connections)
def test_what_was_sent_and_what_was_not_are_the_queue(connection):
    s, sent = connection.snapshot(), connection.sent
    on_its_way = bytes(item for item in sent.items[sent.gone : sent.moved] if item != FIN)
    assert bytes(s.unacked) == on_its_way
    assert bytes(s.never_sent) == sent.data(sent.moved)
    assert bytes(s.unacked) + bytes(s.never_sent) == s.send_queue


@given(connections, st.booleans())
def test_what_a_connection_can_be_is_not_refused(connection, closing):
    check(connection.snapshot(closing))


@given(words)
def test_in_syn_sent_the_send_stream_begins_at_the_initial_number(isn):
    s = Connection(Stream(isn, (SYN,), 0, 1), Stream(0, (), 0, 0)).snapshot(state=TcpState.TCP_SYN_SENT)
    check(s)
    assert (s.send_start, s.snd_una, s.write_seq) == (isn, isn, (isn + 1) % 2**32)


def test_the_streams_come_through_every_state_but_syn_sent():
    def stream(fin, gone):
        return Stream(0, (SYN, *([FIN] if fin else [])), gone, gone)

    ours = [stream(False, 1), stream(True, 1), stream(True, 2)]
    reached = {Connection(s, stream(fin, 1)).snapshot(closing).state
               for s in ours for fin in (False, True) for closing in (False, True)}  # fmt: skip
    assert reached == STATES - {TcpState.TCP_SYN_SENT}


@given(snapshots(), st.integers(0, 2**40))
def test_the_clock_for_time_stamps_goes_on_in_its_own_unit(s, elapsed_ms):
    if s.timestamp is None:
        with pytest.raises(BadInput, match="no time stamps"):
            s.timestamp_after(elapsed_ms)
        return
    later = s.timestamp_after(elapsed_ms)
    assert later % 2 == s.timestamp % 2  # the bit says which unit
    ticks = elapsed_ms * 1000 if s.timestamp % 2 else elapsed_ms
    assert (later - s.timestamp - ticks) % 2**32 in (0, 2**32 - 1)  # at most one less: the lowest bit is taken


@given(snapshots())
def test_the_clock_never_goes_back(s):
    if s.timestamp is not None:
        assert s.timestamp_after(0) == s.timestamp


# ------------------------------------------------------------------------------------- refusals


def at(name="IPv4", **others):
    family, local, peer = ADDRESSES[name]
    return Snapshot(**{"state": TcpState.TCP_ESTABLISHED, "family": family, "local": local, "peer": peer, **others})


S = TcpState
W = Window(1, 2, 3, 4, 5)
CONTRADICTIONS = {
    "state LISTEN": ({"state": S.TCP_LISTEN}, r"state TCP_LISTEN cannot be restored, TCP_ESTABLISHED,"),
    "state SYN_RECV": ({"state": S.TCP_SYN_RECV}, "state TCP_SYN_RECV"),
    "state NEW_SYN_RECV": ({"state": S.TCP_NEW_SYN_RECV}, "state TCP_NEW_SYN_RECV"),
    "state TIME_WAIT": ({"state": S.TCP_TIME_WAIT}, "state TCP_TIME_WAIT"),
    "state of no name": ({"state": 13}, "state 13"),
    "family": ({"family": 1}, "family 1: expected AF_INET"),
    "family of other addresses": ({"family": AF_INET6}, "local: .* expected an address of 4 parts"),
    "local of 4 parts": ({"local": ("192.0.2.1", 1, 0, 0)}, "local: .* 2 parts"),
    "local of no parts": ({"local": ()}, "local: .* 2 parts"),
    "peer of bytes": ({"peer": (b"192.0.2.1", 1)}, "peer: .* 2 parts"),
    "peer's port a text": ({"peer": ("192.0.2.1", "1")}, "peer: .* 2 parts"),
    "peer's port true": ({"peer": ("192.0.2.1", True)}, "peer: .* 2 parts"),
    "no address": ({"local": ("", 1)}, "local: '' is no IPv4 address"),
    "a name": ({"peer": ("localhost", 1)}, "peer: 'localhost' is no IPv4 address"),
    "a short form": ({"peer": ("127.1", 1)}, "peer: '127.1' is no IPv4 address"),
    "a zero byte": ({"local": ("192.0.2.1\0", 1)}, "local: .* is no IPv4 address"),
    "half a character": ({"local": ("\ud800", 1)}, "local: .* is no IPv4 address"),
    "IPv6 in IPv4": ({"local": ("2001:db8::1", 1)}, "local: .* is no IPv4 address"),
    "a scope in IPv4": ({"local": ("192.0.2.1%eth0", 1)}, "local: .* is no IPv4 address"),
    "port 0": ({"peer": ("192.0.2.1", 0)}, "peer port: 0, expected 1 to 65535"),
    "port 65536": ({"local": ("192.0.2.1", 65536)}, "local port: 65536"),
    "rcv_nxt": ({"rcv_nxt": 2**32}, "rcv_nxt: 4294967296, expected 0 to 4294967295"),
    "rcv_nxt below": ({"rcv_nxt": -1}, "rcv_nxt: -1"),
    "write_seq": ({"write_seq": 2**32}, "write_seq"),
    "write_seq true": ({"write_seq": True}, "write_seq: True"),
    "mss_clamp 0": ({"mss_clamp": 0}, "mss_clamp: 0, expected 1 to 65535"),
    "mss_clamp": ({"mss_clamp": 65536}, "mss_clamp: 65536"),
    "one scale": ({"snd_wscale": 7}, "both ends have one or none"),
    "the other scale": ({"rcv_wscale": 0}, "both ends have one or none"),
    "scale 15": ({"snd_wscale": 15, "rcv_wscale": 0}, "snd_wscale: 15, expected 0 to 14"),
    "our scale 15": ({"snd_wscale": 0, "rcv_wscale": 15}, "rcv_wscale: 15"),
    "timestamp": ({"timestamp": 2**32}, "timestamp: 4294967296"),
    "timestamp below": ({"timestamp": -1}, "timestamp: -1"),
    **{f"window.{n}": ({"window": W._replace(**{n: 2**32})}, f"window.{n}: 4294967296") for n in Window._fields},
    "window": ({"window": W._replace(snd_wnd=4)}, "max_window 3 is less than snd_wnd 4"),
    "unsent": ({"send_queue": b"abc", "unsent": 4}, "unsent: 4 bytes of a send queue of 3"),
    "unsent below": ({"unsent": -1}, "unsent: -1"),
    "FIN before it is written": ({"fin_unsent": True}, "no FIN to send in state TCP_ESTABLISHED"),
    "FIN already there": ({"fin_unsent": True, "state": S.TCP_FIN_WAIT2}, "no FIN to send in state TCP_FIN_WAIT2"),
    "FIN past its data": ({"send_queue": b"abc", "unsent": 1, "state": S.TCP_LAST_ACK}, "before the data in front"),
    "data behind an acknowledged FIN": ({"send_queue": b"a", "state": S.TCP_CLOSE}, "send_queue: 1 bytes, but nothing"),
    "data in FIN_WAIT2": ({"send_queue": b"a", "state": S.TCP_FIN_WAIT2}, "send_queue: .* TCP_FIN_WAIT2"),
    "sent before the SYN": ({"send_queue": b"a", "state": S.TCP_SYN_SENT}, "send_queue: .* TCP_SYN_SENT"),
    "received before the SYN": ({"recv_queue": b"a", "state": S.TCP_SYN_SENT}, "recv_queue: nothing can have been"),
    "an option of nobody": ({"options": {"SO_X": 1}}, "option 'SO_X': expected one of SO_REUSEPORT"),
    "an option of IPv6": ({"options": {"IPV6_V6ONLY": 1}}, "option 'IPV6_V6ONLY'"),
    "an option too large": ({"options": {"SO_MARK": 2**31}}, "option SO_MARK: 2147483648, expected a C int"),
    "an option too small": ({"options": {"SO_MARK": -(2**31) - 1}}, "option SO_MARK"),
    "an option of bytes": ({"options": {"SO_MARK": b"1"}}, "option SO_MARK"),
    "an option of numbers": ({"options": {"SO_LINGER": 1}}, "option SO_LINGER: 1, expected at most 8 bytes"),
    "an option too long": ({"options": {"SO_LINGER": bytes(9)}}, "option SO_LINGER"),
    "identity": ({"identity": bytes(15)}, "identity: 15 bytes, expected 16"),
    "filter": ({"filter": bytes(9)}, "filter: 9 bytes, expected at most 4096 instructions of 8"),
    "a long filter": ({"filter": bytes(8 * 4097)}, "filter: 32776 bytes"),
    "interface": ({"interface": "a" * 16}, "interface: .* at most 15 bytes"),
    "interface in bytes": ({"interface": "ä" * 8}, "interface"),
    "interface with a slash": ({"interface": "a/b"}, "interface"),
    "interface with a space": ({"interface": "a b"}, "interface"),
    "interface of dots": ({"interface": ".."}, "interface"),
    "interface with a zero byte": ({"interface": "a\0"}, "interface"),
    "interface of half a character": ({"interface": "\ud800"}, "interface"),
}


@pytest.mark.parametrize(("changes", "words"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_contradiction_is_refused_by_name(changes, words):
    check(at())
    with pytest.raises(BadInput, match=words):
        check(at(**changes))


IN_IPV6 = {
    "no address": ("x", "is no IPv6 address"),
    "IPv4": ("192.0.2.1", "is no IPv6 address"),
    "another form of it": ("2001:DB8::1", "expected '2001:db8::1'"),
    "a mapped one in another form": ("::ffff:c000:201", "expected '::ffff:192.0.2.1'"),
    "half a character as scope": ("fe80::1%\ud800", "is no IPv6 address"),
    "a zero byte in the scope": ("fe80::1%\0", "is no IPv6 address"),
    "a long scope": ("fe80::1%" + "a" * 16, "is no IPv6 address"),
}


@pytest.mark.parametrize(("address", "words"), IN_IPV6.values(), ids=IN_IPV6)
def test_an_ipv6_address_is_written_as_the_kernel_writes_it(address, words):
    with pytest.raises(BadInput, match=f"peer: .* {words}"):
        check(at("IPv6", peer=(address, 80, 0, 0)))


def test_a_link_local_address_keeps_its_scope():
    check(at("IPv6", local=("fe80::1%eth0", 1, 0, 2), peer=("fe80::2%eth0", 80, 0, 2)))
    with pytest.raises(BadInput, match="peer: 4294967296"):
        check(at("IPv6", peer=("fe80::2", 80, 0, 2**32)))
    with pytest.raises(BadInput, match="peer: 1048576, expected 0 to 1048575"):
        check(at("IPv6", peer=("fe80::2", 80, 2**20, 2)))


@pytest.mark.parametrize(
    ("clamp", "maxseg"), [(1, 88), (48, 88), (88, 88), (1460, 1460), (32767, 32767), (65495, 32767)]
)
def test_a_segment_size_that_the_peer_chose_is_brought_into_the_bounds_of_the_option(clamp, maxseg):
    steps = restore_steps(at(mss_clamp=clamp))
    assert [step.args[2] for step in steps if step.what == "largest segment"] == [maxseg]
    [agreed] = [step.args[2] for step in steps if step.args[:2] == (6, TcpOption.TCP_REPAIR_OPTIONS)]
    assert REPAIR_OPT.unpack_from(agreed) == (2, clamp)  # what was agreed on stays


@pytest.mark.parametrize("state", sorted(STATES))
@pytest.mark.parametrize("family", ADDRESSES)
def test_every_state_that_can_be_dumped_can_be_restored(state, family):
    check(at(family, state=state))


@given(snapshots(), st.booleans(), st.integers(0, 2**33))
def test_a_snapshot_that_passes_has_steps(s, probe, elapsed_ms):
    check(s)
    if s.window == (0,) * 5 and not probe:
        with pytest.raises(BadInput, match="probe: without the windows"):
            restore_steps(s, elapsed_ms, probe)
        return
    steps = restore_steps(s, elapsed_ms, probe)
    assert all(isinstance(step.what, str) and isinstance(step.args, tuple) for step in steps)


# ------------------------------------------------------------------------------------- the object


def test_a_snapshot_cannot_be_changed():
    s = at()
    for field in fields(Snapshot):
        with pytest.raises(FrozenInstanceError):
            setattr(s, field.name, None)


def test_each_snapshot_has_an_identity_of_its_own():
    assert len({at().identity for _ in range(100)}) == 100
    s = at()
    assert replace(s, rcv_nxt=1).identity == s.identity


def test_a_snapshot_is_no_pickle():
    s = at(timestamp=7, taken=1.0)
    assert pickle.dumps(s)[:2] not in s.to_bytes()
    with pytest.raises(BadInput):
        Snapshot.from_bytes(pickle.dumps(s))


def test_it_was_taken_when_it_was_made():
    before = time.time()
    assert before <= at().taken <= time.time()
