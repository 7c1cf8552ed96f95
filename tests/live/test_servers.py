"""Programs that know nothing of us at the other end: nginx, Redis, PostgreSQL, while their client moves twenty times.

Each runs on a host of a lab, from a folder of the test's own, and none of it is left.
"""

import hashlib
import os
import select
import shutil
import signal
import socket
import statistics
import struct
import tempfile
import time
from pathlib import Path

import pytest

from kernelnotes.live.moves import move
from kernelnotes.repair.segment import Flags
from tests.live.streams import a_lab

MOVES = 20
NOBODY = 65534
FAMILIES = pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])


@pytest.fixture
def lab():
    with a_lab() as made:
        yield made


@pytest.fixture
def folder():
    """Where a server that may not be root can write, and read."""
    made = Path(tempfile.mkdtemp(prefix="kernelnotes-"))
    if os.geteuid() == 0:
        os.chown(made, NOBODY, NOBODY)
    yield made
    shutil.rmtree(made)


class Server:
    """A program on a host of its own, until the end of the block; it must end by itself when it is told to."""

    def __init__(self, lab, family, port, end=signal.SIGTERM):
        self.host = lab.host("server")
        self.family, self.port, self._end = family, port, end
        self.address = self.host.address4 if family == socket.AF_INET else self.host.address6

    def __call__(self, argv):
        self.program = self.host.start(argv)
        return self

    def __enter__(self):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            assert self.program.poll() is None
            with self.host.socket(self.family) as trial:
                if trial.connect_ex((self.address, self.port)) == 0:
                    return self
            time.sleep(0.05)
        raise TimeoutError

    def __exit__(self, *_):
        self.program.send_signal(self._end)
        assert self.program.wait(20) in (0, -self._end)


class Client:
    """A connection to the server from an address of its own, which moves between two hosts; the freezes in us."""

    def __init__(self, lab, server, receive_buffer=0):
        self._hosts = [lab.host("one"), lab.host("other")]
        address = "192.0.2.100" if server.family == socket.AF_INET else "2001:db8::aa"
        self._hosts[0].add_address(address)
        self.freezes, self._read = [], b""
        self._capture = server.host.capture(flags=Flags.RST | Flags.FIN)
        self.sock = self._hosts[0].socket(server.family)
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.bind((address, 0))
        self.sock.settimeout(20)
        self.sock.connect((server.address, server.port))

    def move(self):
        """To the other host; what was moved."""
        moved = move(self.sock, self._hosts[1])
        self._hosts.reverse()
        self.sock = moved.sock
        self.sock.settimeout(20)
        self.freezes.append(moved.freeze_us)
        return moved.snapshot

    def read(self, count):
        """Exactly so many bytes."""
        while len(self._read) < count:
            part = self.sock.recv(1 << 16)
            assert part, "the server has ended the connection"
            self._read += part
        wanted, self._read = self._read[:count], self._read[count:]
        return wanted

    def read_line(self):
        """Up to a line break, which is left out."""
        while b"\r\n" not in self._read:
            self._read += self.sock.recv(1 << 16)
        line, _, self._read = self._read.partition(b"\r\n")
        return line

    def close(self, what):
        """Tell how long the moves took; nobody has ended the connection before."""
        port = self.sock.getsockname()[1]  # trials whether the server listens have others
        assert [s for s in self._capture.segments if port in (s.sport, s.dport)] == []
        assert self._capture.lost == 0
        self._capture.stop()
        self.sock.close()
        assert len(self.freezes) == MOVES
        print(f"{what}: {MOVES} moves, frozen {statistics.median(self.freezes):.0f} us median", end=", ")
        print(f"{max(self.freezes):.0f} max")


# ------------------------------------------------------------------------------------ nginx

NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{ }}
http {{
    access_log off; default_type text/plain; sendfile on;
    client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
    uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
    server {{ listen {address}:80; root {folder}; }}
}}
"""


@pytest.mark.needs(program="nginx")
@FAMILIES
def test_a_download_from_nginx_arrives_whole_though_its_client_moves(lab, folder, program, family):
    server = Server(lab, family, 80)
    at = f"[{server.address}]" if family == socket.AF_INET6 else server.address
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, address=at))
    block = os.urandom(1 << 20)
    size, expected = 0, hashlib.sha256()
    with (folder / "file").open("wb") as file:
        for number in range(64):
            size += file.write(part := bytes([number]) + block)
            expected.update(part)
    command = [program("nginx"), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    with server(command):
        client = Client(lab, server, receive_buffer=1 << 18)
        client.sock.sendall(b"GET /file HTTP/1.1\r\nHost: server\r\n\r\n")
        assert client.read_line() == b"HTTP/1.1 200 OK"
        headers = list(iter(client.read_line, b""))
        assert f"Content-Length: {size}".encode() in headers
        received, arrived, unread = hashlib.sha256(), 0, 0
        for left in range(MOVES, -1, -1):
            part = client.read(size // (MOVES + 1) if left else size - arrived)
            received.update(part)
            arrived += len(part)
            if left:
                snapshot = client.move()
                unread += bool(snapshot.recv_queue)
                assert arrived + len(snapshot.recv_queue) < size  # it still flows
        assert received.digest() == expected.digest()
        assert unread > 0
        client.close(f"nginx, {size >> 20} MiB")


# ------------------------------------------------------------------------------------ Redis


def command(*words):
    """As the protocol of Redis has it."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


@pytest.mark.needs(program="redis-server")
@FAMILIES
def test_every_reply_of_redis_comes_in_order_though_its_client_moves_within_a_pipeline(lab, folder, program, family):
    server = Server(lab, family, 6379)
    settings = {"port": "6379", "bind": server.address, "dir": str(folder), "save": "", "protected-mode": "no"}
    settings["logfile"] = str(folder / "log")
    words = [word for name, value in settings.items() for word in (f"--{name}", value)]
    rounds = 30_000
    with server([program("redis-server"), *words]):
        client = Client(lab, server)
        client.sock.sendall(command(b"CLIENT", b"ID"))
        session = client.read_line()
        asked = b"".join(command(b"INCR", b"n") + command(b"ECHO", b"%d" % n * 9) for n in range(rounds))
        expected = b"".join(b":%d\r\n$%d\r\n%b\r\n" % (n + 1, len(b"%d" % n * 9), b"%d" % n * 9) for n in range(rounds))
        answered, at = bytearray(), 0
        while len(answered) < len(expected):
            if len(client.freezes) < MOVES and len(answered) > len(expected) * (len(client.freezes) + 1) // 25:
                at += client.sock.send(asked[at : at + 20_000], socket.MSG_DONTWAIT)
                assert asked.count(b"*", 0, at) > answered.count(b"\r\n") * 2 // 3  # questions wait for their answers
                client.move()
            readable, writable, _ = select.select([client.sock], [client.sock] if at < len(asked) else [], [], 20)
            assert readable or writable
            if writable:
                at += client.sock.send(asked[at : at + 20_000], socket.MSG_DONTWAIT)
            if readable:
                answered += client.sock.recv(50_000)
        assert bytes(answered) == expected
        client.sock.sendall(command(b"CLIENT", b"ID") + command(b"GET", b"n"))
        assert client.read_line() == session
        assert (client.read_line(), client.read_line()) == (b"$%d" % len(str(rounds)), b"%d" % rounds)
        client.close(f"Redis, {2 * rounds} commands")


# ------------------------------------------------------------------------------------ PostgreSQL


class Session:
    """A session with PostgreSQL by its own protocol, version 3: start-up without a password, simple queries."""

    def __init__(self, client):
        self.client = client
        body = struct.pack(">I", 196608) + b"user\0tester\0database\0postgres\0\0"
        client.sock.sendall(struct.pack(">I", len(body) + 4) + body)
        started = dict(self._until_ready())
        assert started[b"R"] == bytes(4)  # come in
        self.backend = struct.unpack(">I", started[b"K"][:4])[0]

    def ask(self, query):
        """Send a query, and read nothing yet."""
        body = query.encode() + b"\0"
        self.client.sock.sendall(b"Q" + struct.pack(">I", len(body) + 4) + body)

    def rows(self):
        """What comes back, as text."""
        return [self._fields(body) for kind, body in self._until_ready() if kind == b"D"]

    def query(self, query):
        """The rows of a query."""
        self.ask(query)
        return self.rows()

    def message(self):
        """The next message: its kind and its content."""
        kind, length = struct.unpack(">cI", self.client.read(5))
        body = self.client.read(length - 4)
        assert kind != b"E", body
        return kind, body

    def _until_ready(self):
        while True:
            kind, body = self.message()
            if kind == b"Z":
                self.status = body  # I: idle, T: in a transaction, E: in a failed one
                return
            yield kind, body

    def _fields(self, body):
        [count], at, found = struct.unpack_from(">H", body), 2, []
        for _ in range(count):
            [length] = struct.unpack_from(">i", body, at)
            found.append(body[at + 4 : at + 4 + length].decode())
            at += 4 + length
        return tuple(found)


@pytest.fixture
def cluster(folder, program):
    """A new data folder, and the words before a command that make it run as somebody whom PostgreSQL accepts."""
    user = NOBODY if os.geteuid() == 0 else os.geteuid()
    ids = ["--reuid", str(user), "--regid", str(NOBODY), "--clear-groups", "--pdeathsig", "KILL"]
    prefix = ["setpriv", *ids, "--"] if os.geteuid() == 0 else []
    data = folder / "data"
    make = [program("initdb"), "-D", str(data), "-U", "tester", "-A", "trust", "--no-sync", "--no-locale", "-E", "UTF8"]
    return data, prefix, make


@pytest.mark.needs(program="postgres")
@FAMILIES
def test_a_transaction_of_postgresql_stays_open_though_its_client_moves(lab, cluster, program, family):
    data, prefix, make = cluster
    server = Server(lab, family, 5432, end=signal.SIGINT)
    made = server.host.run([*prefix, *make])
    assert made.returncode == 0, made.stderr
    (data / "pg_hba.conf").write_text("host all all all trust\n")
    settings = ["listen_addresses=" + server.address, "unix_socket_directories=", "fsync=off", "log_min_messages=panic"]
    words = [word for setting in settings for word in ("-c", setting)]
    with server([*prefix, program("postgres"), "-D", str(data), "-p", "5432", *words]):
        client = Client(lab, server)
        session = Session(client)
        session.query("BEGIN ISOLATION LEVEL REPEATABLE READ")
        session.query("CREATE TABLE moved (n int, host text)")
        who = "SELECT pg_backend_pid(), txid_current(), pg_export_snapshot()"
        [(backend, transaction, _)] = session.query(who)
        assert int(backend) == session.backend
        snapshot = session.query("SELECT pg_current_snapshot()")
        witness = Session(Witness(server))
        witness.query("CREATE TABLE meanwhile (n int)")
        for number in range(MOVES):
            session.ask(f"INSERT INTO moved SELECT {number}, md5({number}::text) RETURNING n, host")
            if number % 2:  # the answer comes while it moves
                client.move()
            assert session.rows() == [(str(number), hashlib.md5(str(number).encode()).hexdigest())]
            session.ask(f"SELECT i, repeat(md5(i::text), 30) FROM generate_series({number}, {number} + 4999) i")
            if not number % 2:  # in the middle of the rows
                assert session.message()[0] == b"T"
                assert session._fields(session.message()[1])[0] == str(number)
                client.move()
            rows = session.rows()
            first = number + (number % 2 == 0)
            assert rows == [
                (str(i), hashlib.md5(str(i).encode()).hexdigest() * 30) for i in range(first, number + 5000)
            ]
            assert session.status == b"T"
        assert session.query(who)[0][:2] == (backend, transaction)
        assert session.query("SELECT pg_current_snapshot()") == snapshot
        there_is = "SELECT count(*) FROM pg_class WHERE relname = "
        assert session.query(there_is + "'meanwhile'") == witness.query(there_is + "'moved'") == [("0",)]
        session.query("COMMIT")
        assert session.status == b"I"
        assert witness.query("SELECT count(*), sum(n) FROM moved") == [(str(MOVES), str(sum(range(MOVES))))]
        client.close("PostgreSQL, one transaction")
        witness.client.sock.close()


class Witness:
    """Another connection to the server, which stays where it is."""

    def __init__(self, server):
        self.sock, self._read = server.host.socket(server.family), b""
        self.sock.connect((server.address, server.port))

    read = Client.read
