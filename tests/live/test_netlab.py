"""Hosts on a switch: the packets, addresses and losses are the kernel's own.

Every test runs as root, and once more as an ordinary user in namespaces of his own.
"""

import asyncio
import errno
import itertools
import os
import signal
import socket
import statistics
import struct
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from kernelnotes.errors import BadInput, CallFailed
from kernelnotes.live import inside
from kernelnotes.live.netlab import Lab
from kernelnotes.repair.segment import Flags, Segment, signed
from tests.live.descriptors import descriptors, present
from tests.live.ordinary import as_ordinary_user
from tests.live.streams import a_lab

ROOT = Path(__file__).resolve().parent.parent.parent
FAMILIES = pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])


@pytest.fixture
def lab():
    before = descriptors(), threading.active_count()
    with a_lab() as made:
        yield made
    assert (present(), threading.active_count()) == before


def address(host, family):
    return host.address4 if family == socket.AF_INET else host.address6


def listening(host, family, port=80):
    listener = host.socket(family)
    listener.settimeout(5)
    listener.bind((address(host, family), port))
    listener.listen()
    return listener


class Connection:
    """Two ends: `here` and `there`."""

    def __init__(self, client, server, family=socket.AF_INET, port=80):
        with listening(server, family, port) as listener:
            self.here = client.socket(family)
            self.here.settimeout(5)
            self.here.connect((address(server, family), port))
            self.there, _ = listener.accept()
            self.there.settimeout(5)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.here.close()
        self.there.close()


# ------------------------------------------------------------------------------------ reaching each other


@FAMILIES
def test_a_host_answers_a_ping(lab, family):
    here, there = lab.host("here"), lab.host("there")
    v4 = family == socket.AF_INET
    echo = struct.pack(">BBHHH", 8 if v4 else 128, 0, 0, 77, 1)
    if v4:  # in IPv6 the kernel adds the checksum
        echo = echo[:2] + struct.pack(">H", 0xFFFF - sum(struct.unpack(">4H", echo))) + echo[4:]
    with here.socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMP if v4 else socket.IPPROTO_ICMPV6) as raw:
        raw.settimeout(5)
        raw.sendto(echo, (address(there, family), 0))
        answers = iter(lambda: raw.recvfrom(200), None)
        wanted = 0 if v4 else 129
        sender = next(peer[0] for data, peer in answers if data[20 if v4 else 0] == wanted)
    assert sender == address(there, family)


def test_link_local_addresses_are_there_at_once(lab):
    here, there = lab.host("here"), lab.host("there")
    with there.socket(socket.AF_INET6) as listener, here.socket(socket.AF_INET6) as client:
        listener.bind((there.link_local, 80, 0, there.interface))
        listener.listen()
        client.settimeout(0.9)
        client.connect((there.link_local, 80, 0, here.interface))
        assert client.getsockname()[0] == here.link_local


def test_only_this_thread_is_on_the_host_and_it_comes_back(lab):
    host = lab.host("one")

    def name():
        return os.readlink("/proc/thread-self/ns/net")

    def left_by_an_exception():
        with host.inside():
            seen = []
            thread = threading.Thread(target=lambda: seen.append(name()))
            outside = os.readlink("/proc/self/ns/net")  # the main thread's
            thread.start()
            thread.join()
            assert name() == outside != home
            raise KeyError(seen[0])

    home = name()
    with pytest.raises(KeyError) as e:
        left_by_an_exception()
    assert name() == home
    assert e.value.args[0] != home  # a thread begins where the one that started it is


def test_a_program_runs_on_its_host(lab):
    host = lab.host("one")
    code = "import socket; s = socket.socket(); s.bind(('192.0.2.1', 9)); print(s.getsockname())"
    done = host.run([sys.executable, "-c", code])
    assert (done.returncode, done.stdout, done.stderr) == (0, "('192.0.2.1', 9)\n", "")
    assert lab.host("two").run([sys.executable, "-c", code]).returncode == 1
    with pytest.raises(BadInput, match="no program 'nothing-like-it'"):
        host.run(["nothing-like-it"])


def test_a_program_that_does_not_end_is_killed(lab):
    host = lab.host("one")
    with pytest.raises(subprocess.TimeoutExpired):
        host.run(["sleep", "60"], timeout_s=0.1)
    with Lab() as second:
        program = second.host("two").start(["sleep", "60"])
    assert program.returncode == -signal.SIGKILL


def test_a_setting_is_one_hosts_alone(lab):
    one, two = lab.host("one"), lab.host("two")
    before = one.sysctl("net.ipv4.tcp_wmem", "4096 1000000 4194304")
    assert one.sysctl("net.ipv4.tcp_wmem").split() == ["4096", "1000000", "4194304"]
    assert two.sysctl("net.ipv4.tcp_wmem") == before
    with pytest.raises(CallFailed):
        one.sysctl("net.no.such")


# ------------------------------------------------------------------------------------ captures


@FAMILIES
def test_a_capture_sees_exactly_the_packets_of_a_handshake(lab, family):
    client, server, other = lab.host("client"), lab.host("server"), lab.host("other")
    with ExitStack() as stack:
        captures = [stack.enter_context(host.capture()) for host in (client, server, other)]
        stack.enter_context(Connection(client, server, family))
        for capture in captures[:2]:
            assert capture.wait(lambda seen: len(seen) >= 3)
        time.sleep(0.05)
        at_client, at_server, elsewhere = [capture.segments for capture in captures]
    for seen in (at_client, at_server):
        assert [s.flags for s in seen] == [Flags.SYN, Flags.SYN | Flags.ACK, Flags.ACK]
        assert abs(seen[0].time - time.time()) < 5
        assert [a.time <= b.time for a, b in itertools.pairwise(seen)] == [True, True]
    assert [replace(s, time=0) for s in at_client] == [replace(s, time=0) for s in at_server]
    assert elsewhere == []
    assert [capture.lost for capture in captures] == [0, 0, 0]
    assert list(captures[0].table().direction[:3]) == ["client -> server", "server -> client", "client -> server"]


def test_no_packet_is_larger_than_the_wire_allows_and_the_bytes_are_those_sent(lab):
    client, server = lab.host("client"), lab.host("server")
    sent = os.urandom(100_000)
    with client.capture() as capture, Connection(client, server) as connection:
        threading.Thread(target=connection.here.sendall, args=(sent,)).start()
        received = b""
        while len(received) < len(sent):
            received += connection.there.recv(65536)
        data = [s for s in capture.segments if s.payload]
    assert received == sent
    assert max(s.length for s in data) == 1448
    start = data[0].seq
    stream = bytearray(len(sent))
    for s in data:
        at = signed(s.seq - start)
        stream[at : at + s.length] = s.payload
    assert bytes(stream) == sent


def test_headers_alone_keep_the_lengths(lab):
    client, server = lab.host("client"), lab.host("server")
    with client.capture(keep=100) as capture, Connection(client, server) as connection:
        connection.here.sendall(bytes(1448))
        capture.wait(lambda seen: any(s.length == 1448 for s in seen))
    [segment] = [s for s in capture.segments if s.length]
    assert segment.length == 1448
    assert 0 < segment.cut < 1448


@FAMILIES
def test_a_capture_of_some_flags_sees_these_segments_and_no_others(lab, family):
    client, server = lab.host("client"), lab.host("server")
    wanted = Flags.SYN | Flags.FIN
    with server.capture() as all_of_them, server.capture(packets=8, flags=wanted) as few:
        with Connection(client, server, family) as connection:
            for _ in range(200):
                connection.here.sendall(b"x")
                connection.there.recv(1)
        all_of_them.wait(lambda seen: sum(bool(s.flags & Flags.FIN) for s in seen) == 2)
        timeless = [[replace(s, time=0) for s in each.segments] for each in (few, all_of_them)]
        assert timeless[0] == [s for s in timeless[1] if s.flags & wanted]
        assert (len(few.segments), few.lost) == (4, 0)


def test_what_finds_no_room_is_counted(lab):
    client, server = lab.host("client"), lab.host("server")
    with client.capture(packets=64) as small, client.capture() as large:
        shower(client, server, 500)
    assert large.lost == 0
    assert small.lost > 0
    assert len(small.segments) + small.lost == len(large.segments) == 1000
    assert small.table().attrs["lost"] == small.lost


def shower(source, target, count, family=socket.AF_INET):
    """Segments that nobody waits for: each is answered with a RST."""
    segment = Segment(
        src=address(source, family), sport=1000, dst=address(target, family), dport=9, flags=Flags.ACK, seq=0
    )
    with source.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for number in range(count):
            raw.sendto(replace(segment, seq=number).to_ip(), (segment.dst, 0))


@FAMILIES
@pytest.mark.parametrize("spoiled", [False, True], ids=["right", "wrong"])
def test_the_kernel_takes_a_segment_of_ours_for_its_peers_if_the_checksum_is_right(lab, family, spoiled):
    client, server = lab.host("client"), lab.host("server")
    with client.capture() as capture, Connection(client, server, family) as connection:
        capture.wait(lambda seen: len(seen) >= 3)
        last = capture.segments[2]
        packet = bytearray(replace(last, flags=Flags.ACK | Flags.PSH, payload=b"forged").to_ip())
        if spoiled:
            packet[-1] ^= 1
        with client.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            raw.sendto(packet, (last.dst, 0))
        connection.there.settimeout(0.2 if spoiled else 5)
        if spoiled:
            with pytest.raises(TimeoutError):
                connection.there.recv(100)
        else:
            assert connection.there.recv(100) == b"forged"


@FAMILIES
def test_what_the_kernel_writes_is_written_the_same_by_us_options_and_checksum_included(lab, family):
    # Its SYN: the same header and options in the same order; the packet as the kernel sent it comes by a raw socket.
    client, server = lab.host("client"), lab.host("server")
    with server.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)) as tap, client.capture() as capture:
        tap.settimeout(5)
        with Connection(client, server, family) as connection:
            connection.here.sendall(b"some bytes")
            capture.wait(lambda seen: any(s.payload for s in seen))
        packets = []
        while len(packets) < 4:
            packet = tap.recv(2000)
            header = {4: 20, 6: 40}[packet[0] >> 4] if packet[0] >> 4 in (4, 6) else 0
            if header and packet[9 if header == 20 else 6] == socket.IPPROTO_TCP:
                packets.append(packet[header:])
    for segment, written in zip(capture.segments, packets, strict=False):
        assert segment.to_ip()[-len(written) :] == written


def test_a_capture_that_cannot_be_is_refused(lab):
    host = lab.host("one")
    with pytest.raises(BadInput):
        host.capture(keep=10)
    with pytest.raises(BadInput):
        host.capture(packets=0)


# ------------------------------------------------------------------------------------ addresses


@FAMILIES
def test_an_address_that_is_taken_over_leads_there_for_those_who_knew_it(lab, family):
    old, new, peer = lab.host("old"), lab.host("new"), lab.host("peer")
    shared = address(old, family)
    with Connection(peer, old, family) as connection:
        assert peer.neighbours()[shared] == old.mac
        new.take_over(shared)
        assert eventually(lambda: peer.neighbours()[shared] == new.mac)
        assert lab.owner(shared) is new
        with new.capture() as capture:
            connection.here.sendall(b"anybody there?")
            assert capture.wait(lambda seen: any(s.flags & Flags.RST for s in seen))  # no such connection here
    old.take_over(shared)
    with Connection(peer, old, family, port=81) as connection:
        connection.there.sendall(b"back")
        assert connection.here.recv(100) == b"back"


def eventually(true):
    deadline = time.monotonic() + 2
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    return true()


@FAMILIES
def test_a_connection_goes_on_when_its_address_comes_back(lab, family):
    old, new, peer = lab.host("old"), lab.host("new"), lab.host("peer")
    shared = address(old, family)
    with Connection(peer, old, family) as connection:
        for host in [new, old] * 5:
            host.take_over(shared)
        for sender, receiver in ((connection.here, connection.there), (connection.there, connection.here)):
            sender.sendall(b"still here")
            assert receiver.recv(100) == b"still here"


@FAMILIES
def test_an_address_moves_within_a_millisecond(lab, family):
    one, two = lab.host("one"), lab.host("two")
    shared = address(one, family)
    one.prepare(shared)
    taken = []
    for host in [two, one] * 50:
        start = time.perf_counter()
        host.take_over(shared)
        taken.append(time.perf_counter() - start)
    assert statistics.median(taken) < 1e-3


@FAMILIES
def test_the_first_packet_after_a_move_arrives(lab, family):
    one, two, peer = lab.host("one"), lab.host("two"), lab.host("peer")
    shared = address(one, family)
    one.prepare(shared)
    with ExitStack() as stack:
        sender, *receivers = [stack.enter_context(h.socket(family, socket.SOCK_DGRAM)) for h in (peer, one, two)]
        for receiver in receivers:
            receiver.settimeout(2)
            receiver.bind(("", 80))
        sender.sendto(b"who are you?", (shared, 80))
        receivers[0].recv(100)
        for move in range(1, 101):
            (one, two)[move % 2].take_over(shared)
            sender.sendto(b"%d" % move, (shared, 80))
            assert receivers[move % 2].recv(100) == b"%d" % move


def test_a_third_address_moves_too(lab):
    one, two, peer = lab.host("one"), lab.host("two"), lab.host("peer")
    one.add_address("192.0.2.250")
    two.take_over("192.0.2.250")
    assert lab.names["192.0.2.250"] == "two"
    with two.socket() as listener, peer.socket() as client:
        listener.bind(("192.0.2.250", 80))
        listener.listen()
        client.settimeout(5)
        client.connect(("192.0.2.250", 80))


def test_an_address_that_cannot_be_taken_over_stays_where_it_was(lab):
    one, two, peer = lab.host("one"), lab.host("two"), lab.host("peer")
    two._addresses.add(one.address4, announce=False)  # behind the lab's back
    with pytest.raises(CallFailed) as e:
        two.take_over(one.address4)
    assert e.value.errno == errno.EEXIST
    assert lab.owner(one.address4) is one
    with Connection(peer, one):
        pass


@pytest.mark.parametrize("wrong", ["192.0.2.77", "10.0.0.1", "::1", "everywhere"])
def test_an_address_that_nobody_has_is_refused(lab, wrong):
    with pytest.raises(BadInput):
        lab.host("one").take_over(wrong)


def test_a_name_or_an_address_is_given_once(lab):
    one = lab.host("one")
    with pytest.raises(BadInput):
        lab.host("one")
    with pytest.raises(BadInput):
        one.add_address(one.address4)
    with pytest.raises(BadInput):
        Lab().host("of a lab that is not open")


# ------------------------------------------------------------------------------------ loss


@FAMILIES
@pytest.mark.parametrize("share", [0, 0.25, 1])
def test_about_the_asked_share_is_lost_on_the_way_and_the_kernel_counts_it(lab, family, share):
    source, target = lab.host("source"), lab.host("target")
    sent = 2000
    with target.capture() as capture:
        with lab.drop(share, source=source) as loss:
            shower(source, target, sent, family)
            time.sleep(0.05)
        arrived = sum(s.src == address(source, family) for s in capture.segments)
        assert arrived + loss.dropped == sent
        deviation = (sent * share * (1 - share)) ** 0.5
        assert abs(loss.dropped - sent * share) <= 5 * deviation
        shower(source, target, 100, family)
        assert capture.wait(lambda seen: sum(s.src == address(source, family) for s in seen) == arrived + 100)


def test_loss_has_a_direction(lab):
    one, two = lab.host("one"), lab.host("two")
    with two.capture() as capture, lab.drop(1, source=two, target=one) as loss:
        shower(one, two, 50)
        capture.wait(lambda seen: len(seen) >= 100)
        assert loss.dropped == 50  # the answers
    with one.capture() as capture, lab.drop(1, target=lab.host("three")):
        shower(one, two, 50)
        assert capture.wait(lambda seen: len(seen) == 100)


def test_tcp_gets_its_bytes_through_all_the_same(lab):
    client, server = lab.host("client"), lab.host("server")
    sent = os.urandom(50_000)
    with Connection(client, server) as connection:
        with lab.drop(1, source=client) as loss:
            connection.here.sendall(sent[:10_000])
            assert eventually(lambda: loss.dropped)
        threading.Thread(target=connection.here.sendall, args=(sent[10_000:],)).start()
        received = b""
        while len(received) < len(sent):
            received += connection.there.recv(65536)
    assert received == sent


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_no_share_beyond_all_or_none(lab, share):
    with pytest.raises(BadInput):
        lab.drop(share)


def test_a_lab_works_where_an_event_loop_runs_as_in_a_notebook():
    async def cell():
        with a_lab() as lab:
            one, two = lab.host("one"), lab.host("two")
            with lab.drop(1, source=one) as loss:
                assert loss.dropped == 0
            one.add_address("192.0.2.100")
            two.take_over("192.0.2.100")
            return one.neighbours()

    before = threading.active_count()
    with ThreadPoolExecutor(1) as cells:  # in this thread the browser of other tests may have an event loop running
        assert cells.submit(asyncio.run, cell()).result(30) == {}
    assert threading.active_count() == before


# ------------------------------------------------------------------------------------ nothing left behind

HOLDING = """
    import signal, sys
    from kernelnotes.live.netlab import Lab
    with Lab() as lab:
        host = lab.host("one")
        capture, loss = host.capture(), lab.drop(0.5)
        program = host.start(["sleep", "600"])
        lab._route.link("add", ifname="probe", kind="veth", peer={"ifname": "probe", "net_ns_fd": int(sys.argv[1])})
        print(program.pid, flush=True)
        signal.pause()
"""


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"])
def test_nothing_is_left_of_a_lab_whose_process_was_ended(lab, name):
    # Its switch holds one end of a pair of interfaces; the kernel takes ours away with the other one.
    network = inside.new_network()
    try:
        command = [sys.executable, "-c", textwrap.dedent(HOLDING), str(network)]
        with subprocess.Popen(
            command, pass_fds=[network], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            program = int(process.stdout.readline())
            assert "probe" in interfaces(network)
            os.kill(program, 0)
            process.send_signal(getattr(signal, name))
        assert process.returncode != 0
        assert eventually(lambda: "probe" not in interfaces(network))
        assert eventually(lambda: not running(program))
    finally:
        os.close(network)


def interfaces(network):
    with inside.inside(network):
        return [name for _, name in socket.if_nameindex()]


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# ------------------------------------------------------------------------------------ without root


@pytest.mark.needs("namespaces")
class TestAsAnOrdinaryUser:
    def test_the_refusal_names_the_remedy(self):
        code = "from kernelnotes.live.netlab import Lab\nwith Lab(): pass"
        done = as_ordinary_user(sys.executable, "-c", code)
        assert "Unavailable" in done.stderr
        assert "unshare -Urnm" in done.stderr

    def test_a_program_can_start_itself_anew_where_it_may(self, tmp_path):
        script = tmp_path / "program.py"
        script.write_text(
            "import sys\n"
            "from kernelnotes.live import inside, netlab\n"
            "inside.enter_own_namespaces()\n"
            "with netlab.Lab() as lab: print(lab.host('one').address4, *sys.argv[1:])\n"
        )
        done = as_ordinary_user(sys.executable, "-X", "dev", str(script), "two words", "-x")
        assert done.stdout == "192.0.2.1 two words -x\n", done.stderr
