"""Segments against what tcpdump reads in packets of a real kernel, and against the bytes that this kernel wrote."""

import contextlib
import json
import re
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelnotes.errors import BadInput
from kernelnotes.repair.segment import Flags, Segment, from_ip, signed, table

RECORDED = json.loads((Path(__file__).parent / "data/segments.json").read_text())["packets"]
LETTERS = {"F": Flags.FIN, "S": Flags.SYN, "R": Flags.RST, "P": Flags.PSH, ".": Flags.ACK, "U": Flags.URG}


def recorded(pattern=""):
    found = [(bytes.fromhex(r["packet"]), r["tcpdump"]) for r in RECORDED if re.search(pattern, r["tcpdump"])]
    assert found
    return found


PACKETS = pytest.mark.parametrize(("packet", "told"), recorded(), ids=range(len(RECORDED)))


def number(pattern, told):
    """The number that tcpdump printed after a word, None where it did not."""
    match = re.search(pattern + r" (\d+)", told)
    return int(match[1]) if match else None


@PACKETS
def test_it_reads_what_tcpdump_reads(packet, told):
    s = from_ip(packet)
    assert f" {s.src}.{s.sport} > {s.dst}.{s.dport}: " in told
    assert s.flags == sum(LETTERS[letter] for letter in re.search(r"Flags \[(.*?)\]", told)[1])
    assert (s.seq, s.window) == (number("seq", told) or s.seq, number("win", told))
    assert s.ack == (number(r"\back", told) or 0)
    assert s.urgent == (number("urg", told) or 0)
    assert (s.mss, s.wscale) == (number("mss", told), number("wscale", told))
    assert (s.tsval, s.tsecr) == (number("TS val", told), number("ecr", told))
    assert s.sack_permitted == ("sackOK" in told)
    assert s.length == int(re.search(r"length (\d+)$", told)[1])
    assert s.cut == 0


@PACKETS
def test_it_writes_the_kernels_own_bytes_with_the_checksum_that_tcpdump_wants(packet, told):
    # The kernel leaves the checksum to the card, which the loopback interface does not have.
    header = 20 if packet[0] >> 4 == 4 else 40
    wanted = int(re.search(r"incorrect -> 0x([0-9a-f]+)", told)[1], 16)
    segment = packet[header : header + 16] + struct.pack(">H", wanted) + packet[header + 18 :]
    assert from_ip(packet).to_ip()[header:] == segment


def ones_complement(data):
    """RFC 1071: 16-bit words added with the carry brought round."""
    total = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


words = st.integers(0, 2**32 - 1)
shorts = st.integers(0, 2**16 - 1)
addresses = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4)), st.tuples(st.ip_addresses(v=6), st.ip_addresses(v=6))
)
stamps = st.one_of(st.none(), st.tuples(words, words))


@st.composite
def segments(draw):
    src, dst = map(str, draw(addresses))
    tsval, tsecr = draw(stamps) or (None, None)
    opening = draw(st.booleans())
    return Segment(
        src=src,
        sport=draw(shorts),
        dst=dst,
        dport=draw(shorts),
        flags=Flags(draw(st.integers(0, 255))),
        seq=draw(words),
        ack=draw(words),
        window=draw(shorts),
        urgent=draw(shorts),
        mss=draw(st.one_of(st.none(), shorts)) if opening else None,
        wscale=draw(st.one_of(st.none(), st.integers(0, 255))) if opening else None,
        sack_permitted=opening and draw(st.booleans()),
        tsval=tsval,
        tsecr=tsecr,
        sack=() if opening else tuple(draw(st.lists(st.tuples(words, words), max_size=3))),
        payload=draw(st.binary(max_size=30)),
    )


@given(segments())
def test_what_was_written_is_read_back_and_its_checksums_add_up(s):
    packet = s.to_ip()
    assert from_ip(packet) == s
    if packet[0] >> 4 == 4:
        assert ones_complement(packet[:20]) == 0xFFFF
        addresses, body = packet[12:20], packet[20:]
    else:
        addresses, body = packet[8:40], packet[40:]
    assert ones_complement(addresses + struct.pack(">HH", 6, len(body)) + body) == 0xFFFF


@given(st.data())
def test_a_packet_with_any_byte_changed_is_a_segment_or_bad_input(data):
    packet = bytearray(data.draw(st.sampled_from(recorded()))[0])
    for _ in range(data.draw(st.integers(1, 4))):
        packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadInput):
        assert isinstance(from_ip(bytes(packet)), Segment)


@given(st.sampled_from([b"", b"\x45", b"\x60"]), st.binary(max_size=80))
def test_any_bytes_are_a_segment_or_bad_input(begin, rest):
    with contextlib.suppress(BadInput):
        assert isinstance(from_ip(begin + rest), Segment)


@PACKETS
def test_a_cut_packet_is_taken_as_long_as_its_headers_are_whole(packet, told):
    whole = from_ip(packet)
    headers = len(packet) - whole.length
    for kept in range(headers, len(packet)):
        s = from_ip(packet[:kept])
        assert (s.length, s.cut, s.end) == (whole.length, len(packet) - kept, whole.end)
    for kept in range(headers):
        with pytest.raises(BadInput):
            from_ip(packet[:kept])


def test_what_follows_a_packet_is_not_its_payload():
    packet, _ = recorded("length 5$")[0]
    assert from_ip(packet + bytes(20)).payload == from_ip(packet).payload == b"hello"


@pytest.mark.parametrize(
    ("at", "value", "said"),
    [
        (0, 0x55, "version 5"),
        (6, 0x20, "fragment"),
        (7, 1, "fragment"),
        (9, 17, "protocol 17"),
        (41, 3, "option 2 with 1 bytes"),
        (41, 1, "option 2 of length 1"),
        (41, 41, "option 2 of length 41"),
    ],
)
def test_a_bad_packet_is_refused_with_the_reason(at, value, said):
    packet = bytearray(recorded(r"\[S\]")[0][0])
    packet[at] = value
    with pytest.raises(BadInput, match=said):
        from_ip(bytes(packet))


GOOD = Segment(src="10.0.0.1", sport=1, dst="10.0.0.2", dport=2, flags=Flags.ACK, seq=0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"sport": 65536},
        {"seq": 2**32},
        {"seq": -1},
        {"dst": "fd00::1"},
        {"tsval": 1},
        {"sack": ((0, 2**32),)},
        {"wscale": 256},
    ],
)
def test_no_segment_holds_what_no_header_can(wrong):
    with pytest.raises(BadInput):
        replace(GOOD, **wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"payload": bytes(65600)},
        {"cut": 1},
        {"src": "here"},
        {"sack": ((0, 1),) * 4, "tsval": 1, "tsecr": 2},
    ],
)
def test_no_packet_is_written_of_what_does_not_fit(wrong):
    with pytest.raises(BadInput):
        replace(GOOD, **wrong).to_ip()


@pytest.mark.parametrize("family", ["127.0.0", "fd00::"])
def test_the_table_counts_from_the_syn(family):
    frame = table(from_ip(packet) for packet, told in recorded(re.escape(family)))
    assert list(frame.seq[:6]) == [0, 0, 1, 1, 1, 1]
    assert list(frame.ack[1:6]) == [1, 1, 1, 6, 6]
    assert list(frame["flags"][:3]) == ["SYN", "SYN ACK", "ACK"]
    assert list(frame.length[3:6]) == [5, 0, 6]
    assert frame.ack.isna()[0]


def test_the_table_counts_from_the_first_segment_where_no_syn_was_seen_and_across_the_wrap():
    back = replace(GOOD, src=GOOD.dst, sport=2, dst=GOOD.src, dport=1)
    seen = [
        replace(GOOD, seq=2**32 - 3, ack=500, payload=b"abcdef", time=1.5),
        replace(back, seq=500, ack=3, time=1.5005),
        replace(GOOD, seq=2**32 - 4, ack=500, time=1.501),
        replace(back, seq=500, ack=3, sack=((5, 7),), time=1.502),
    ]
    frame = table(seen, names={"10.0.0.1": "client"})
    assert list(frame.seq) == [0, 0, -1, 0]
    assert list(frame.ack) == [0, 6, 0, 6]
    assert list(frame.ms) == [0, 0.5, 1, 2]
    assert frame.options[3] == "sack 8-10"
    assert list(frame.direction[:2]) == ["client -> 10.0.0.2:2", "10.0.0.2:2 -> client"]


def test_an_empty_table_has_the_same_columns():
    empty, one = table([]), table([GOOD])
    assert list(empty.columns) == list(one.columns)
    assert list(empty.dtypes)[3:7] == list(one.dtypes)[3:7]


@pytest.mark.parametrize(
    ("number", "difference"), [(0, 0), (1, 1), (2**31 - 1, 2**31 - 1), (2**31, -(2**31)), (2**32 - 1, -1)]
)
def test_differences_are_signed_like_the_kernels(number, difference):
    assert signed(number) == difference
