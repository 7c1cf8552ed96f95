"""Snapshots as files: what comes back is what went in, and whatever else a file holds is refused, at no cost."""

import hashlib
import json
import struct
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
from connections import ADDRESSES, snapshots
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernelnotes.errors import BadInput
from kernelnotes.repair import Snapshot, TcpState, Window, check, restore_steps

HEAD = struct.Struct("<8sHIQQ")
GOLDEN = Path(__file__).parent / "data" / "repair_version_1.snapshot"
# What is in that file, written here by hand.
IN_GOLDEN = Snapshot(
    state=TcpState.TCP_LAST_ACK,
    family=10,
    local=("fe80::1%eth0", 40000, 0, 2),
    peer=("fe80::2%eth0", 443, 7, 2),
    recv_queue=b"not read yet\n",
    rcv_nxt=5,
    send_queue=bytes(range(256)),
    write_seq=0xFFFFFFFF,
    unsent=100,
    fin_unsent=True,
    mss_clamp=1440,
    snd_wscale=7,
    rcv_wscale=14,
    sack=True,
    timestamp=0x80000001,
    window=Window(4294967290, 65536, 131072, 64240, 4),
    interface="eth0",
    options={"TCP_CONGESTION": b"cubic", "SO_SNDBUF": 87040, "SO_PEEK_OFF": 3, "SO_LINGER": bytes([1, 0, 0, 0] * 2)},
    filter=bytes([6, 0, 0, 0, 255, 255, 255, 255]),
    taken=1764046285.25,
    identity=bytes(range(16)),
)
SMALL = Snapshot(
    state=TcpState.TCP_ESTABLISHED,
    family=2,
    local=("192.0.2.1", 40000),
    peer=("192.0.2.2", 80),
    recv_queue=b"in",
    send_queue=b"out",
    unsent=1,
    timestamp=8,
    options={"SO_LINGER": bytes(8), "SO_MARK": 1},
)


def refused(data, *words):
    with pytest.raises(BadInput) as caught:
        Snapshot.from_bytes(data)
    for word in words:
        assert word in str(caught.value)
    assert len(str(caught.value)) < 1000


def parts(data):
    """The description, as text, and what lies behind it, without the check sum."""
    length = HEAD.unpack_from(data)[2]
    return data[HEAD.size : HEAD.size + length], data[HEAD.size + length : -32]


def described(text, snapshot=SMALL):
    """A file whose description is this text, all else in order, the check sum put right."""
    _, queues = parts(snapshot.to_bytes())
    head = HEAD.pack(b"KNREPAIR", 1, len(text), len(snapshot.recv_queue), len(snapshot.send_queue))
    body = head + text + queues
    return body + hashlib.sha256(body).digest()


def changed(name, value):
    """SMALL's file with another value (a piece of JSON text) of one field."""
    meta = {n: json.dumps(v) for n, v in json.loads(parts(SMALL.to_bytes())[0]).items()} | {name: value}
    return described(b"{%s}" % b", ".join(b'"%s": %s' % (n.encode(), v.encode()) for n, v in meta.items()))


# ------------------------------------------------------------------------------------- there and back


@given(snapshots())
def test_what_is_read_is_what_was_written(s):
    check(s)
    data = s.to_bytes()
    back = Snapshot.from_bytes(data)
    assert back == s
    assert back.to_bytes() == data
    assert (type(back.state), type(back.window), type(back.taken)) == (TcpState, Window, float)
    assert Snapshot.from_bytes(memoryview(bytearray(data))) == s


def test_options_that_cannot_be_changed_are_written_too():
    s = Snapshot.from_bytes(SMALL.to_bytes())
    frozen = replace(s, options=MappingProxyType(dict(s.options)))
    assert frozen.to_bytes() == s.to_bytes()


def test_the_files_of_version_1_can_be_read():
    assert Snapshot.from_bytes(GOLDEN.read_bytes()) == IN_GOLDEN


def test_the_files_of_version_1_are_written_as_ever():
    assert IN_GOLDEN.to_bytes() == GOLDEN.read_bytes()


def test_other_programs_can_read_the_file():
    # As the drawing in the module says, and with nothing of ours.
    data = GOLDEN.read_bytes()
    magic, version, text, received, sent = HEAD.unpack_from(data)
    assert (magic, version, received, sent) == (b"KNREPAIR", 1, 13, 256)
    meta = json.loads(data[30 : 30 + text])
    assert (meta["state"], meta["write_seq"], meta["peer"]) == ("TCP_LAST_ACK", 2**32 - 1, ["fe80::2%eth0", 443, 7, 2])
    assert data[30 + text : 30 + text + received] == b"not read yet\n"
    assert data[30 + text + received : -32] == bytes(range(256))
    assert data[-32:] == hashlib.sha256(data[:-32]).digest()


# ------------------------------------------------------------------------------------- damage


def test_every_single_flipped_bit_is_refused():
    whole = SMALL.to_bytes()
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        refused(damaged, "snapshot")


def test_every_truncation_is_refused_and_so_is_what_is_added():
    whole = SMALL.to_bytes()
    for length in range(len(whole)):
        refused(whole[:length], "snapshot")
    refused(whole + b"\0", f"{len(whole) + 1} bytes long, expected {len(whole)}")
    refused(whole + whole, "added to")


@pytest.mark.parametrize("version", [0, 2, 256, 65535])
def test_another_version_is_refused_by_its_number(version):
    whole = bytearray(SMALL.to_bytes())
    struct.pack_into("<H", whole, 8, version)
    refused(whole, f"version {version}, expected 1")


@given(st.binary(max_size=200))
def test_anything_else_is_no_snapshot(data):
    refused(data, "no snapshot")
    refused(b"KNREPAIR" + data, "snapshot")


@pytest.mark.parametrize(
    "lengths", [(2**32 - 1, 0, 0), (0, 2**64 - 1, 0), (0, 0, 2**63), (2**32 - 1, 2**64 - 1, 2**64 - 1)]
)
def test_hostile_lengths_cost_no_memory(lengths):
    file = HEAD.pack(b"KNREPAIR", 1, *lengths) + bytes(1000)
    tracemalloc.start()
    try:
        refused(file, "1030 bytes long, expected")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20_000


def test_a_description_longer_than_any_is_not_read():
    refused(described(b" " * (2**20 + 1)), "1048577 bytes long, expected at most 1048576")


def test_queues_are_copied_once():
    size = 16 << 20
    data = replace(SMALL, recv_queue=bytes(size)).to_bytes()
    tracemalloc.start()
    try:
        s = Snapshot.from_bytes(data)
        _, read = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        s.to_bytes()
        _, wrote = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert read < 1.1 * size
    assert wrote < 2.1 * size  # the file, beside the snapshot


# ------------------------------------------------------------------------------------- false descriptions

FIELDS = sorted(json.loads(parts(SMALL.to_bytes())[0]))
DEPTHS = (10, 200, 300, 330, 450, 490, 900, 980, 100_000)
VALUES = [
    "null", "true", "false", "0", "1", "-1", "1.5", "NaN", "Infinity", "-Infinity", "1e999", "4294967296",
    "1" + "0" * 400, "9" * 5000, '""', '"x"', '"\\ud800"', '"\\u0000"', '"00"', '"' + "00" * 40_000 + '"',
    '"' + "x" * 100_000 + '"', "[]", "[1]", "[null, null]", '["192.0.2.1", 1.0]', '["192.0.2.1", 1, 0, 0]',
    '["", "", "", ""]', "[1, 2, 3, 4, 5]", "[1, 2, 3, 4, NaN]", "[true, 1, 1, 1, 1]", "[1, 2, 3, 4, 5, 6]", "{}",
    '{"SO_MARK": null}', '{"SO_MARK": true}', '{"SO_MARK": 1.0}', '{"SO_MARK": "00"}', '{"SO_MARK": "x"}',
    '{"SO_MARK": [1]}', '{"SO_LINGER": "' + "00" * 40_000 + '"}',
    '{"' + "x" * 100_000 + '": 1}', '{"SO_LINGER": 1}', '{"\\ud800": 1}', '{"": 1}', "[" * 100_000, '"', "}", "",
    *("[" * depth + "]" * depth for depth in DEPTHS),
    *('["192.0.2.1", ' + "[" * depth + "]" * depth + "]" for depth in DEPTHS),
    *('{"SO_MARK": ' + "[" * depth + "]" * depth + "}" for depth in DEPTHS),
]  # fmt: skip


def same_types(s):
    """Each field is of the type that the class says."""
    ints = (s.family, s.rcv_nxt, s.write_seq, s.unsent, s.mss_clamp, *s.local[1:], *s.peer[1:], *s.window)
    texts = (s.local[0], s.peer[0], s.interface, *s.options)
    maybe = [n for n in (s.snd_wscale, s.rcv_wscale, s.timestamp) if n is not None]
    return (
        all(type(n) is int for n in (*ints, *maybe))
        and all(type(text) is str for text in texts)
        and all(type(flag) is bool for flag in (s.fin_unsent, s.sack))
        and all(type(b) is bytes for b in (s.recv_queue, s.send_queue, s.filter, s.identity))
        and all(type(value) in (int, bytes) for value in s.options.values())
        and (type(s.state), type(s.window), type(s.taken)) == (TcpState, Window, float)
    )


def refused_or_sound(data):
    """Nothing but BadInput comes out of it, or a snapshot that has steps."""
    try:
        s = Snapshot.from_bytes(data)
    except BadInput as e:
        assert len(str(e)) < 1000, str(e)[:2000]  # noqa: PT017
        return
    assert same_types(s)
    restore_steps(s)


@pytest.mark.parametrize("name", FIELDS)
def test_no_value_of_a_field_does_harm(name):
    for value in VALUES:
        refused_or_sound(changed(name, value))


@pytest.mark.parametrize("name", ["local", "interface", "options", "taken"])
def test_no_depth_does_harm(name):
    # Somewhere here the reader gives up; what it reads just before that may be too deep for a message about it.
    for depth in range(sys.getrecursionlimit() - 250, sys.getrecursionlimit()):
        for value in ("[" * depth + "]" * depth, '["192.0.2.1", ' + "[" * depth + "]" * depth + "]"):
            refused_or_sound(changed(name, value))


def test_the_fuzzer_makes_good_files_too():
    assert Snapshot.from_bytes(changed("sack", "true")).sack
    assert Snapshot.from_bytes(changed("unsent", "0")).unacked == b"out"


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_that_is_missing_is_named(name):
    meta = json.loads(parts(SMALL.to_bytes())[0])
    del meta[name]
    refused(described(json.dumps(meta).encode()), f"wrong fields: ['{name}']")


def test_fields_that_nobody_knows_are_named_within_bounds():
    meta = json.loads(parts(SMALL.to_bytes())[0])
    refused(described(json.dumps(meta | {"colour": 1}).encode()), "wrong fields: ['colour']")
    refused(described(json.dumps(meta | {"x" * 100_000: 1}).encode()), "wrong fields")
    refused(described(json.dumps(meta | {str(n): 1 for n in range(50_000)}).encode()), "wrong fields")


def test_a_field_told_twice_is_refused():
    text, _ = parts(SMALL.to_bytes())
    refused(described(text[:-1] + b', "sack": true}'), "sack", "twice")


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"{", b"\xff\xfe", b"[" * 100_000, b"{}", b'"x"', b"NaN"])
def test_a_description_that_is_none_is_refused(text):
    refused(described(text), "description")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(FIELDS), json_values, min_size=1, max_size=4))
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_no_description_does_harm(changes):
    meta = json.loads(parts(SMALL.to_bytes())[0]) | changes
    refused_or_sound(described(json.dumps(meta).encode()))


numbers = st.one_of(st.integers(-2, 70000), st.integers(), st.sampled_from([2**31, 2**32 - 1, 2**32, 14, 15]))


@given(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(("rcv_nxt", "write_seq", "unsent", "mss_clamp", "timestamp", "family"), numbers)
        | {
            "state": st.sampled_from([s.name for s in TcpState]),
            "fin_unsent": st.booleans(),
            "window": st.lists(numbers, min_size=4, max_size=5),
            "peer": st.sampled_from([list(a[2]) for a in ADDRESSES.values()] + [["x", 1], ["192.0.2.1", 0]]),
            "taken": st.floats() | numbers,
        },
    )
)
def test_no_numbers_do_harm(changes):
    meta = json.loads(parts(SMALL.to_bytes())[0]) | changes
    refused_or_sound(described(json.dumps(meta).encode()))


def test_nothing_is_imported_or_run_in_reading():
    before, events = set(sys.modules), []
    tracing = [True]
    sys.addaudithook(lambda event, _: events.append(event) if tracing[0] else None)
    try:
        Snapshot.from_bytes(GOLDEN.read_bytes())
    finally:
        tracing[0] = False
    assert set(sys.modules) == before
    assert not {
        event for event in events if event.startswith(("pickle", "exec", "compile", "import", "os.", "subprocess"))
    }
