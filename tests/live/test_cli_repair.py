"""`kernelnotes repair`: a connection moves before your eyes, and from one process to another through a file."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from kernelnotes.repair.segment import Flags
from tests.live.streams import PATIENCE_S, a_lab, data, read, read_all, until

pytestmark = pytest.mark.needs("tcp repair")
COMMAND = str(Path(sys.executable).with_name("kernelnotes"))


def run(*arguments):
    done = subprocess.run([COMMAND, "repair", *arguments], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def test_the_demo_shows_moves_as_they_happen_and_the_packets_around_the_first():
    status, out, err = run("demo", "--moves", "3")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == [
        "move 1 of 3, to the new host",
        "move 2 of 3, to the old host",
        "move 3 of 3, to the new host",
    ]
    assert "3 moves: every byte arrived once and in its place (SHA-256), 0 resets" in lines[-2]
    assert lines[-1].startswith("live: Linux ")
    packets = [line for line in lines if " ms   " in line]
    places = [next(k for k, line in enumerate(packets) if line.endswith(what)) for what in (
        "the old socket is locked", "the address is on the new host", "the new socket lives")]  # fmt: skip
    assert places == sorted(places)
    assert "new host to peer: ACK" in packets[places[1] + 1]  # the window probe


def test_the_demo_as_json_keeps_its_progress_apart():
    status, out, err = run("demo", "--moves", "1", "--json")
    assert status == 0
    told = json.loads(out)
    assert told["origin"].startswith("live: ")
    assert (told["whole"], told["resets"], len(told["moves"])) == (True, 0, 1)
    assert err.startswith("move 1 of 1")


HOLDING = """
    import socket, sys, time
    sock = socket.create_connection((sys.argv[1], int(sys.argv[2])))
    sock.sendall(b"first ")
    print(sock.fileno(), flush=True)
    time.sleep(600)
"""


class Place:
    """A program on one host that holds a connection, and our end of it on another host."""

    def __init__(self, lab):
        self.here, self.peer = lab.host("here"), lab.host("peer")
        with self.peer.socket() as listener:
            listener.bind((self.peer.address4, 0))
            listener.listen()
            program = [sys.executable, "-c", textwrap.dedent(HOLDING), *map(str, listener.getsockname())]
            self.holder = self.here.start(program, stdout=subprocess.PIPE, text=True)
            self.sock, _ = listener.accept()
        self.sock.settimeout(PATIENCE_S)
        self.fd = self.holder.stdout.readline().strip()
        assert read(self.sock, 6) == b"first "

    def start(self, *arguments):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return self.here.start([COMMAND, "repair", *arguments], **pipes)

    def dump(self, file, *options):
        return self.start("dump", "--pid", str(self.holder.pid), "--fd", self.fd, "-o", str(file), *options)


@pytest.fixture
def place():
    with a_lab() as lab:
        made = Place(lab)
        yield made
        made.sock.close()


def test_a_connection_goes_through_a_file_to_another_program(place, tmp_path):
    file = tmp_path / "connection"
    place.sock.sendall(b"unread ")
    with place.peer.capture(keep=120) as capture:
        dumping = place.dump(file)
        until(file.exists)
        place.sock.sendall(b"meanwhile ")
        time.sleep(0.05)
        restoring = place.here.start([COMMAND, "repair", "restore", str(file), "--", "cat"], stderr=subprocess.PIPE)
        out, err = dumping.communicate(timeout=PATIENCE_S)
        assert dumping.returncode == 0, err
        assert "TCP_ESTABLISHED" in out
        assert f"until {file} is restored here" in err
        assert read(place.sock, 17) == b"unread meanwhile "  # cat gives back what it gets
        place.sock.sendall(data(300_000)[:50_000])
        assert read(place.sock, 50_000) == data(300_000)[:50_000]
        place.sock.shutdown(1)
        assert read_all(place.sock) == b""
        assert restoring.wait(PATIENCE_S) == 0
        assert not any(Flags.RST in s.flags for s in capture.segments)
    assert os.listdir(tmp_path) == ["connection.used"]
    assert place.holder.poll() is None


def test_what_was_dumped_is_shown_and_ctrl_c_ends_the_waiting(place, tmp_path):
    file = tmp_path / "connection"
    place.sock.sendall(data(1000))
    dumping = place.dump(file, "--json")
    assert '"recv_queue": 1000' in next(line.strip().rstrip(",") for line in dumping.stdout if "recv_queue" in line)
    dumping.send_signal(signal.SIGINT)
    _, err = dumping.communicate(timeout=PATIENCE_S)
    assert dumping.returncode == 0
    assert f"the connection is in {file}" in err
    status, out, _ = run("show", str(file), "--json")
    told = json.loads(out)
    assert (status, told["state"], told["recv_queue"], told["send_queue"]) == (0, "TCP_ESTABLISHED", 1000, 0)
    assert told["peer"] == f"{place.peer.address4} {place.sock.getsockname()[1]}"
    assert (told["rcv_nxt"] - told["copied_seq"]) % 2**32 == 1000


def test_what_cannot_be_restored_can_be_restored_later(place, tmp_path):
    file = tmp_path / "connection"
    dumping = place.dump(file, "--no-guard")
    dumping.communicate(timeout=PATIENCE_S)
    assert dumping.returncode == 0
    elsewhere = [COMMAND, "repair", "restore", str(file), "--", "cat"]
    failed = place.peer.run(elsewhere)  # where the address is not
    assert failed.returncode == 1
    assert "local address: Cannot assign requested address" in failed.stderr
    assert os.listdir(tmp_path) == ["connection"]
    place.here.start(elsewhere)
    until(lambda: not file.exists())
    place.sock.sendall(b"still there?")
    assert read(place.sock, 12) == b"still there?"


def test_a_dump_that_fails_leaves_the_connection_where_it_was(place, tmp_path):
    (tmp_path / "connection").write_text("mine")
    dumping = place.dump(tmp_path / "connection")
    out, err = dumping.communicate(timeout=PATIENCE_S)
    assert (dumping.returncode, out) == (2, "")
    assert err == f"kernelnotes: {tmp_path / 'connection'}: File exists\n"
    assert (tmp_path / "connection").read_text() == "mine"


def test_a_connection_that_was_left_in_repair_mode_thaws(place):
    with_fd = ["--pid", str(place.holder.pid), "--fd", place.fd]
    thawing = place.start("thaw", *with_fd)
    _, err = thawing.communicate(timeout=PATIENCE_S)
    assert (thawing.returncode, err) == (2, "kernelnotes: the socket is not in repair mode\n")
    frozen = "import sys; from kernelnotes.live import repair; from kernelnotes.repair import steps\n"
    frozen += "steps.perform([steps.LOCK, steps.REPAIR_ON], repair.calls(repair.take(*map(int, sys.argv[1:]))))"
    assert place.here.run([sys.executable, "-c", frozen, str(place.holder.pid), place.fd]).returncode == 0
    thawing = place.start("thaw", *with_fd)
    _, err = thawing.communicate(timeout=PATIENCE_S)
    assert (thawing.returncode, err) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["restore", "/nowhere/at/all", "--", "cat"], "/nowhere/at/all: No such file or directory"),
        (["restore", "/nowhere/at/all", "--", "no-such-program"], "there is no program 'no-such-program'"),
        (["restore", "/nowhere/at/all"], "Missing argument 'COMMAND'"),
        (["show", "/dev/null"], "/dev/null: "),
        (["dump", "--pid", "0", "--fd", "3", "-o", "file"], "greater than or equal to 1"),
        (["demo", "--moves", "0"], "greater than or equal to 1"),
    ],
)
def test_bad_input_is_named_and_ends_with_status_2(arguments, problem):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert problem in err
    assert "Traceback" not in err
