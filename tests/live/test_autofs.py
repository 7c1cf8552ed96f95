"""The automounter, and others, over the running kernel's autofs; requests are those of other programs."""

import contextlib
import errno
import fcntl
import functools
import inspect
import itertools
import json
import os
import random
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from kernelnotes import autofs
from kernelnotes import live as living
from kernelnotes.errors import BadInput, CallFailed, Unavailable
from kernelnotes.live import mounts, pipes, trial
from kernelnotes.live.autofs import TMPFS, Automount, Requester, control, read_map, unfix
from kernelnotes.live.origin import kernel
from kernelnotes.live.signals import HELD
from live import isolated as isolation
from live.isolated import CLONE_NEWPID, isolated


@pytest.fixture
def folder():
    """What autofs is mounted on; beside it `source`, with a file `hello`.  Everybody may go there."""
    with tempfile.TemporaryDirectory(prefix="kernelnotes-autofs-") as name:
        place = Path(name)
        place.chmod(0o755)
        (place / "auto").mkdir()
        (place / "source").mkdir()
        (place / "source/hello").write_text("hi")
        yield place / "auto"
        assert name not in Path("/proc/self/mountinfo").read_text()


def start(*command, **options):
    """A requester, in a process group of its own: of the daemon's group it would trigger nothing."""
    return subprocess.Popen(
        command, process_group=0, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )


def ended(process, seconds=10):
    """What a requester printed, once it has ended; killed if it does not."""
    try:
        return process.communicate(timeout=seconds)[0]
    finally:
        process.kill()
        process.communicate()


def ls(*paths, **options):
    """The names that ls prints, or its complaint."""
    return " ".join(ended(start("ls", *map(os.fspath, paths), **options)).split())


def complaint(process):
    """What a requester says last."""
    return ended(process).strip().rpartition(": ")[2]


def until(condition, seconds=10):
    """What the condition comes to once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)
    return found


def state(process):
    """The letter of /proc/pid/stat, and the function of the kernel that it waits in."""
    of = Path("/proc", str(process.pid))
    return of.joinpath("stat").read_text().rpartition(") ")[2][0], of.joinpath("wchan").read_text()


def waits_in_autofs(process):
    return state(process) == ("D", "autofs_wait")


def steps(log, *kinds):
    """(what, name) of the events; an answer that was under way when it all ended may have been refused."""
    told = [(event.what, event.name) for event in log.events]
    end = told.index(("catatonic", told[0][1])) if "catatonic" in dict(told) else len(told)
    told = told[:end] + [step for step in told[end:] if step[0] != "refused"]
    return [step for step in told if not kinds or step[0] in kinds]


def mounted_below(path):
    return [m.point for m in mounts.mounted() if m.point.startswith(os.fspath(path))]


# ----------------------------------------------------------------------------------------- requests and answers


@isolated
def test_a_name_is_mounted_when_somebody_asks_and_unknown_ones_do_not_exist(folder):
    names = {"source": folder.parent / "source", "empty": TMPFS}
    with Automount(folder, names.get) as served:
        assert ls(folder) == ""
        assert ls(folder / "source") == "hello"
        assert ls(folder / "empty") == ""
        assert "No such file" in ended(start("stat", f"{folder}/other"))  # one call; ls makes two
        assert ls(folder / "source/hello") == f"{folder}/source/hello"  # mounted already: no second request
        assert ls(folder) == "empty source"
        assert [m.fstype for m in mounts.mounted() if m.point == f"{folder}/empty"] == ["tmpfs"]
    log = served.log
    assert steps(log, "missing", "mount", "ready", "fail") == [
        *((what, name) for name in ("source", "empty") for what in ("missing", "mount", "ready")),
        *((what, "other") for what in ("missing", "fail")),
    ]
    assert [e.what for e in log.events][-4:] == ["catatonic", "unmount", "unmount", "end"]
    assert {e.detail for e in log.events[-4:]} == {""}
    assert log.provenance.kind == "live"
    assert log.provenance.kernel == kernel()


@isolated
def test_the_log_names_who_asked(folder):
    with Automount(folder, lambda name: TMPFS) as served:
        asker = start("ls", f"{folder}/name", user=1000, group=1001, extra_groups=[])
        ended(asker)
    [asked] = [event for event in served.log.events if event.what == "missing"]
    assert (asked.pid, asked.uid, asked.gid) == (asker.pid, 1000, 1001)
    assert f"pid {asker.pid}, uid 1000, gid 1001" in str(asked)
    assert list(served.log.to_frame()["receiver"])[:3] == ["kernel", "daemon", "kernel"]


@isolated
def test_a_lookup_of_two_arguments_is_told_who_asks(folder):
    told = []
    with Automount(folder, lambda name, requester: told.append((name, requester)) or TMPFS):
        asker = start("ls", f"{folder}/name", user=1000, group=1001, extra_groups=[])
        ended(asker)
    assert told == [("name", Requester(uid=1000, gid=1001, pid=asker.pid))]


THREAD = """
import os, sys, threading
thread = threading.Thread(target=lambda: print(threading.get_native_id() != os.getpid(), os.stat(sys.argv[1]).st_uid))
thread.start()
thread.join()
"""


@isolated
def test_who_asks_is_a_process_whichever_of_its_threads_it_is(folder):
    told = []
    with Automount(folder, lambda name, requester: told.append(requester.pid) or TMPFS) as served:
        asker = start(sys.executable, "-c", THREAD, f"{folder}/name")
        assert ended(asker) == "True 0\n"
    assert told == [event.pid for event in served.log.events if event.what == "missing"] == [asker.pid]


@isolated
def test_a_lookup_decides_by_who_asks(folder):
    source = folder.parent / "source"
    with Automount(folder, lambda name, requester: source if requester.uid == 1000 else None):
        assert "No such file" in ls(folder / "name")
        assert ls(folder / "name", user=1000) == "hello"


class Lookups:
    """Ways to write a lookup: each returns the arguments it was given."""

    def one(self, *given):
        """Takes any number; one is enough."""
        return given

    def two(self, name, requester):
        """Both are needed."""
        return name, requester

    def three(self, name, requester, more=None):
        """The last may be left out."""
        return name, requester

    def __call__(self, name):
        """An object to be called."""
        return (name,)


WHO = Requester(1, 2, 3)


@pytest.mark.parametrize(
    ("lookup", "given"),
    [
        (lambda name: (name,), ("n",)),
        ({"n": ("n",)}.get, ("n",)),  # its second argument is something else, and not needed
        (lambda name, default=None: (name, default), ("n", None)),
        (Lookups().one, ("n",)),
        (Lookups(), ("n",)),
        (str, "n"),  # has no signature
        (Lookups().two, ("n", WHO)),
        (Lookups().three, ("n", WHO)),
        (functools.partial(Lookups.two, None), ("n", WHO)),
        (functools.partial(Lookups().two, requester=None), ("n", None)),
    ],
)
def test_a_lookup_gets_one_argument_where_one_is_enough_else_two(tmp_path, lookup, given):
    assert Automount(tmp_path, lookup)._ask("n", WHO) == given


@pytest.mark.parametrize(
    ("lookup", "complaint"),
    [
        (lambda: None, r"lookup takes \(\), expected \(name\) or \(name, requester\)"),
        (lambda a, b, c: None, r"lookup takes \(a, b, c\), expected"),
        (lambda name, *, requester: None, r"lookup takes \(name, \*, requester\), expected"),
        ({"a": "/"}, r"lookup is \{'a': '/'\}, expected a function"),
        (None, "lookup is None, expected a function"),
    ],
)
def test_a_lookup_that_cannot_be_called_so_is_refused(tmp_path, lookup, complaint):
    with pytest.raises(BadInput, match=complaint):
        Automount(tmp_path, lookup)


@isolated
def test_names_are_bytes_of_which_253_reach_the_daemon(folder):
    given = [b"\xc3\xa9\xff\n", b"b" * 253, b"b" * 254, b"b" * 255]
    with Automount(folder, lambda name: TMPFS) as served:
        for name in given:
            ls(folder / os.fsdecode(name))
    asked = [os.fsencode(name) for what, name in steps(served.log) if what == "missing"]
    assert asked == given[:2]
    assert all(str(event).isprintable() for event in served.log.events)


@isolated
def test_an_error_in_the_lookup_or_the_mount_is_enoent_for_the_requester_and_stands_in_the_log(folder):
    def lookup(name):
        if name == "raises":
            raise RuntimeError("the moon is down")
        return {"relative": "src", "gone": "/no/such/folder", "good": TMPFS}[name]

    with Automount(folder, lookup) as served:
        for name in ("raises", "unknown", "relative", "gone"):
            assert "No such file" in ls(folder / name)
        assert ls(folder) == ""
        assert ls(folder / "good") == ""
    why = {event.name: event.detail for event in served.log.events if event.what == "fail"}
    assert why["raises"] == "RuntimeError: the moon is down"
    assert why["unknown"] == "KeyError: 'unknown'"
    assert "'src', expected an absolute path or tmpfs" in why["relative"]
    assert "No such file or directory" in why["gone"]
    assert "good" not in why


@isolated
def test_what_nobody_uses_is_unmounted_and_mounted_again_when_asked_for(folder):
    with Automount(folder, lambda name: TMPFS, timeout=1) as served:
        user = start("sleep", "60", cwd=ended(start("ls", "-d", f"{folder}/busy/.")).strip())
        ls(folder / "idle")
        until(lambda: ("ready", "idle") in steps(served.log)[7:])
        assert mounted_below(folder) == [str(folder), f"{folder}/busy"]
        assert ls(folder) == "busy"
        ls(folder / "idle")
        user.kill()
        ended(user)
        until(lambda: mounted_below(folder) == [str(folder)])
    of_idle = [what for what, name in steps(served.log) if name == "idle"]
    once = ["missing", "mount", "ready", "expire", "unmount", "ready"]
    assert of_idle == once + once
    assert [what for what, name in steps(served.log) if name == "busy"] == once


@isolated
def test_timeout_0_never_expires(folder):
    with Automount(folder, lambda name: TMPFS, timeout=0) as served:
        ls(folder / "name")
        time.sleep(1.5)
        assert f"{folder}/name" in mounted_below(folder)
    assert not steps(served.log, "expire")


@isolated
def test_a_direct_mount_is_the_folder_itself(folder):
    source = folder.parent / "source"
    asked = []
    with Automount(folder, lambda name: asked.append(name) or source, timeout=1, direct=True) as served:
        assert ls(folder) == "hello"
        until(lambda: mounted_below(folder) == [str(folder)])
        assert ls(folder) == "hello"
    assert asked == [str(folder)] * 2
    kinds = ["missing", "mount", "ready"]
    assert [what for what, _ in steps(served.log)] == [
        "serve", *kinds, "expire", "unmount", "ready", *kinds, "catatonic", "unmount", "end"
    ]  # fmt: skip


@isolated
def test_two_automounters_serve_side_by_side(folder):
    (folder.parent / "direct").mkdir()
    source = folder.parent / "source"
    with (
        Automount(folder, {"a": source}.get) as one,
        Automount(folder.parent / "direct", lambda name: source, direct=True) as two,
    ):
        both = [start("ls", f"{folder}/a"), start("ls", f"{folder.parent}/direct")]
        assert [ended(process).strip() for process in both] == ["hello", "hello"]
    assert steps(one.log, "mount") == [("mount", "a")]
    assert steps(two.log, "mount") == [("mount", f"{folder.parent}/direct")]


# ----------------------------------------------------------------------------------------- the end


@isolated
def test_an_exception_in_the_block_unmounts_everything_also_what_is_in_use(folder):
    with pytest.raises(ZeroDivisionError), Automount(folder, lambda name: TMPFS) as served:  # noqa: PT012
        ls(folder / "idle")
        user = start("sleep", "60", cwd=ended(start("ls", "-d", f"{folder}/busy/.")).strip())
        _ = 1 / 0
    assert mounted_below(folder) == []
    assert {e.name: e.detail for e in served.log.events if e.what == "unmount"} == {
        "idle": "",
        "busy": "it is in use: detached",
    }
    user.kill()
    ended(user)


DAEMON = """
import sys, time
from kernelnotes.live.autofs import TMPFS, Automount

def lookup(name):
    print("asked", flush=True)
    time.sleep({"slow": 1, "stuck": 300}.get(name, 0))
    return TMPFS

with Automount(sys.argv[1], lookup, timeout=300, direct="direct" in sys.argv) as served:
    print("serving", flush=True)
    time.sleep(300)
"""


@contextmanager
def daemon(folder, *arguments):
    """An automounter in a process of its own."""
    command = [sys.executable, "-c", DAEMON, os.fspath(folder), *arguments]
    with subprocess.Popen(command, process_group=0, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"serving\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@isolated
def test_a_signal_ends_it_cleanly_with_a_request_pending(folder, signum):
    with daemon(folder) as process:
        ls(folder / "idle")
        pending = start("ls", f"{folder}/slow")
        assert [process.stdout.readline() for _ in range(2)] == [b"asked\n"] * 2
        process.send_signal(signum)
        process.send_signal(signum)
        assert "No such file" in ended(pending)
        assert process.wait(10) == (-signum if signum == signal.SIGINT else 128 + signum)
    assert mounted_below(folder) == []


def test_the_root_folder_is_refused_before_anything_is_mounted(monkeypatch):
    monkeypatch.setattr(mounts, "mount", lambda *_, **__: pytest.fail("mounted"))
    monkeypatch.setattr(mounts, "unmount", lambda *_: pytest.fail("unmounted"))
    for path in ("/", "/usr/.."):
        with pytest.raises(BadInput, match="the root folder cannot be served"):
            Automount(path, lambda name: None)


def in_a_child(work):
    """What `work()` says, in a child of this process."""
    read, write = os.pipe()
    if not (child := os.fork()):
        try:
            os.write(write, work().encode())
        except BaseException as e:
            os.write(write, f"{type(e).__name__}: {e}".encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with open(read) as said:  # to the end, of grandchildren too
        return said.read()


def first_of_a_pid_namespace(work):
    """What `work()` says, as the first process of a new pid namespace."""

    def outside():
        trial._libc("unshare", CLONE_NEWPID)  # for our children to come
        return in_a_child(work)

    return in_a_child(outside)


def served_or_not(folder):
    """`served`, or why not."""
    try:
        with Automount(folder, lambda name: TMPFS):
            return ls(folder / "name") or "served"
    except Unavailable as e:
        return str(e)


@isolated
def test_a_process_group_from_outside_of_the_pid_namespace_is_refused_before_anything_is_mounted(folder):
    def first_of_its_namespace():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mounts, "mount", lambda *_, **__: pytest.fail("mounted"))
            refused = served_or_not(folder)
        os.setpgid(0, 0)
        return f"{refused} | {served_or_not(folder)}"

    assert first_of_a_pid_namespace(first_of_its_namespace) == (
        "autofs: the leader of this process group is outside of our pid namespace, and the kernel would take nobody "
        "for the daemon. Remedy: a group of one's own, os.setpgid(0, 0) | served"
    )


@isolated
def test_the_leader_of_the_process_group_may_have_ended(folder):
    def leader():
        os.setpgid(0, 0)
        if os.fork():
            os._exit(0)
        until(lambda: not Path(f"/proc/{os.getpgrp()}").exists())
        return served_or_not(folder)

    assert in_a_child(leader) == "served"


@isolated
def test_a_mount_that_is_not_ours_is_left_alone(folder, monkeypatch):
    monkeypatch.setattr(Automount, "_is_ours", lambda *_: False)
    with pytest.raises(CallFailed, match="covered by another mount"), Automount(folder, lambda name: TMPFS):
        pytest.fail("served")
    assert mounted_below(folder) == [str(folder)]
    mounts.unmount(str(folder))


@pytest.mark.parametrize("direct", [False, True])
@isolated
def test_an_ancestor_that_is_swapped_leads_it_to_nobody_elses_mount(folder, direct):
    above, elsewhere, victim = (folder.parent / name for name in ("above", "elsewhere", "victim"))
    for path in (above / "auto", victim / "auto"):
        path.mkdir(parents=True)
    with Automount(above / "auto", lambda name: folder.parent / "source", timeout=1, direct=direct) as served:
        first, second = (elsewhere / "auto" / ("" if direct else name) for name in ("first", "second"))
        above.rename(elsewhere)  # whoever may write in the folder that it lies in
        above.symlink_to(victim)
        foreign = [victim / "auto"] if direct else [victim / "auto", victim / "auto/first"]
        for path in foreign:
            path.mkdir(exist_ok=True)
            mounts.mount("tmpfs", str(path), "tmpfs")
        assert ls(first) == "hello"
        until(lambda: mounted_below(elsewhere) == [str(elsewhere / "auto")])  # expired
        assert ls(second) == "hello"
        assert ls(first) == "hello"
        user = start("sleep", "60", cwd=first)
    assert mounted_below(folder.parent) == [str(path) for path in foreign]
    assert ls(victim / "auto") == ("" if direct else "first")
    assert {e.name: e.detail for e in served.log.events[-3:] if e.what == "unmount"} == (
        {str(above / "auto"): "it is in use: detached"} if direct else {"first": "it is in use: detached", "second": ""}
    )
    user.kill()
    ended(user)
    for path in reversed(foreign):
        mounts.unmount(str(path))


@isolated
def test_what_is_mounted_in_its_place_by_others_is_left_alone(folder):
    with Automount(folder, lambda name: TMPFS) as served:
        ls(folder / "name")
        subprocess.run(["umount", "-R", "-l", folder], check=True)
        mounts.mount("tmpfs", str(folder), "tmpfs")
    assert [m.fstype for m in mounts.mounted() if m.point == str(folder)] == ["tmpfs"]
    assert [event.what for event in served.log.events][-1] == "catatonic"
    mounts.unmount(str(folder))


@isolated
def test_who_works_in_the_folder_itself_keeps_it_until_he_leaves(folder):
    with Automount(folder, lambda name: TMPFS) as served:
        user = start("sleep", "60", cwd=folder)
    assert (served.log.events[-1].what, served.log.events[-1].detail) == ("end", "it is in use: detached")
    assert mounted_below(folder) == []
    user.kill()
    ended(user)


@isolated
def test_what_its_user_mounts_below_a_source_outlives_the_automounter(folder):
    shared = folder.parent / "shared"
    shared.mkdir()
    mounts.mount("tmpfs", str(shared), "tmpfs")
    mounts.mount("", str(shared), flags=1 << 20)  # MS_SHARED, as systemd makes everything
    (shared / "sub").mkdir()
    with Automount(folder, lambda name: shared):
        assert ls(folder / "x") == "sub"
        mounts.mount("tmpfs", str(shared / "sub"), "tmpfs")
        assert str(folder / "x/sub") in mounted_below(folder)
    assert mounted_below(shared) == [str(shared), str(shared / "sub")]
    for path in (shared / "sub", shared):
        mounts.unmount(str(path))


@isolated
def test_the_mount_of_another_automounter_is_not_taken_over(folder):
    read, write = os.pipe()
    mounts.mount(
        "other", str(folder), "autofs", options=f"fd={write},pgrp={os.getpgrp()},minproto=5,maxproto=5,indirect"
    )
    os.close(read)
    os.close(write)
    with pytest.raises(BadInput, match="belongs to another automounter, 'other'"), Automount(folder, lambda name: None):
        pytest.fail("served")
    mounts.unmount(str(folder))


@isolated
def test_a_signal_during_the_set_up_leaves_nothing(folder):
    chance = random.Random(2012)
    for _ in range(6):
        command = [sys.executable, "-c", DAEMON, os.fspath(folder)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            time.sleep(0.1 + 0.2 * chance.random())  # from the imports to the first packet
            process.terminate()
            assert process.wait(10) in (128 + signal.SIGTERM, -signal.SIGTERM)
        assert mounted_below(folder) == []


def leave_autofs(folder):
    """A mount as a daemon leaves it that was killed."""
    ends = os.pipe()
    options = f"fd={ends[1]},pgrp={os.getpgrp()},minproto=5,maxproto=5,indirect"
    mounts.mount("kernelnotes", str(folder), "autofs", options=options)
    for end in ends:
        os.close(end)


class Told(BaseException):
    """What the signal handlers of the program raise that uses the automounter."""


OWN_FILES = {inspect.getsourcefile(module) for module in (living.autofs, mounts, living.signals, contextlib)}


RETURN_OF_ENTER = ("return", Automount.__enter__.__code__)


def steps_of(work, act=lambda number: None):
    """How many calls and returns of our functions, and of those they call, the work is made of; `act` is done at each.

    They are where Python looks for signals; each line of the code counts once.  Left out are the return of __enter__,
    after which it does not look, and the calls of C functions: it looks when they are done.
    """
    seen = set()

    def profile(frame, event, _):
        code, place = frame.f_code, (frame.f_code, frame.f_lineno, event)
        left_out = event == "c_call" or (event, code) == RETURN_OF_ENTER
        if code.co_filename in OWN_FILES and place not in seen and not left_out:
            seen.add(place)
            act(len(seen))

    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
    return len(seen)


def each_step_interrupted(session, after):
    """The session again and again, a signal at each step of it, then `after(what happened)`; how many steps it has."""

    def tell(*_):
        raise Told

    for signum in HELD:
        signal.signal(signum, tell)
    for chosen in itertools.count(1):
        signum = HELD[chosen % len(HELD)]
        try:
            many = steps_of(
                session, lambda number, at=chosen, signum=signum: number == at and signal.raise_signal(signum)
            )
        except (Told, SystemExit, KeyboardInterrupt) as e:
            after(f"signal {signum} at step {chosen} raised {e!r}")
        else:
            assert many < chosen, f"signal {signum} was lost at step {chosen} of {many}"
            break
    for signum in HELD:
        with pytest.raises(Told):
            signal.raise_signal(signum)
    return many


@isolated
def test_a_signal_at_any_step_of_the_beginning_and_the_end_leaves_nothing_and_is_not_lost(folder):
    def session():
        with Automount(folder, lambda name: TMPFS):
            (folder / "name").mkdir()
            mounts.mount("tmpfs", str(folder / "name"), "tmpfs")

    def nothing_is_left(happened):
        assert isolation._present() == before, happened

    before = isolation._present()
    assert each_step_interrupted(session, nothing_is_left) > 100


@isolated
def test_a_signal_at_any_step_of_a_takeover_leaves_nothing_or_what_it_found(folder):
    def session():
        with Automount(folder, lambda name: TMPFS) as served:
            assert steps(served.log) == [("reconnect", str(folder))]

    def found_or_nothing(happened):
        nonlocal found
        present = isolation._present()
        assert present in (found, before), happened
        if present == before:
            leave_autofs(folder)
            found = isolation._present()

    before = isolation._present()
    leave_autofs(folder)
    found = isolation._present()
    assert each_step_interrupted(session, found_or_nothing) > 100


@isolated
def test_the_next_daemon_takes_over_from_one_that_was_killed_and_nobody_stays_stuck(folder):
    with daemon(folder) as first:
        ls(folder / "idle")
        pending = [start("stat", f"{folder}/stuck") for _ in range(3)]
        until(lambda: all(map(waits_in_autofs, pending)))
        first.kill()
        first.wait()
        time.sleep(0.1)
        assert all(map(waits_in_autofs, pending))  # nobody is there to answer
        with Automount(folder, lambda name: TMPFS, timeout=1) as second:
            assert [("No such file" in ended(process)) for process in pending] == [True] * 3
            assert ls(folder / "stuck") == ""
            assert pipes.is_packet(second.pipe)
            until(lambda: mounted_below(folder) == [str(folder)])  # what the first one had mounted expires too
    assert steps(second.log)[0] == ("reconnect", str(folder))
    assert second.log.events[0].detail == "1 mounts found"
    assert {name for what, name in steps(second.log, "unmount")} == {"idle", "stuck"}
    assert mounted_below(folder) == []


def forty_at_once(folder, restore_signals=True):
    """More requests than the pipe has room for: 16 packets, one writer that waits for room, the rest behind it."""
    # Python ignores SIGPIPE, and so do these, if it is not given back to them.
    asking = [start("stat", f"{folder}/{number}", restore_signals=restore_signals) for number in range(40)]
    until(lambda: sum(map(waits_in_autofs, asking)) >= 16 and any("pipe_write" in state(p)[1] for p in asking))
    return asking


@isolated
def test_the_death_of_a_daemon_with_a_full_pipe_releases_everybody_and_the_next_one_serves(folder):
    with daemon(folder) as first:
        stuck = start("stat", f"{folder}/stuck")
        assert first.stdout.readline() == b"asked\n"
        asking = [stuck, *forty_at_once(folder, restore_signals=False)]
        first.kill()
        first.wait()
        assert {complaint(process) for process in asking} == {"No such file or directory"}
        with Automount(folder, lambda name: TMPFS):
            assert ls(folder / "7") == ""
    assert mounted_below(folder) == []


@isolated
def test_the_next_daemon_answers_who_waits_behind_a_pipe_that_its_dead_one_left_full(folder):
    with daemon(folder) as first:
        stuck = start("stat", f"{folder}/stuck")
        assert first.stdout.readline() == b"asked\n"
        asking = [stuck, *(start("stat", f"{folder}/{number}") for number in range(16))]
        until(lambda: all(map(waits_in_autofs, asking)))  # 16 packets: nobody waits for room, nobody finds it broken
        first.kill()
        first.wait()
        late = [start("stat", f"{folder}/{number}") for number in range(8)]  # join those who wait
        until(lambda: all(map(waits_in_autofs, late)))
        with Automount(folder, lambda name: TMPFS) as second:
            assert {complaint(process) for process in asking + late} == {"No such file or directory"}
            assert ls(folder / "7") == ls(folder / "new") == ""
            time.sleep(0.5)
            assert steps(second.log, "reconnect", "refused") == [("reconnect", str(folder))]
    assert mounted_below(folder) == []


HOG = """
import contextlib, os, time
with contextlib.suppress(PermissionError):
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
print("busy", flush=True)
end = time.monotonic() + 0.8  # less than a real-time process may have of a second
while time.monotonic() < end:
    pass
"""


@isolated
def test_a_requester_that_finds_the_old_pipe_broken_after_the_takeover_cuts_nobody_off(folder):
    # These have one CPU, which is busy when the old daemon dies: they notice after the next one has begun.
    all_cpus = os.sched_getaffinity(0)
    with daemon(folder) as first:
        os.sched_setaffinity(0, {max(all_cpus)})
        stuck = start("stat", f"{folder}/stuck")
        assert first.stdout.readline() == b"asked\n"
        asking = [stuck, *forty_at_once(folder)]
        hog = subprocess.Popen([sys.executable, "-c", HOG], stdout=subprocess.PIPE)
        os.sched_setaffinity(0, all_cpus - {max(all_cpus)} or all_cpus)
        hog.stdout.readline()
        first.kill()
        first.wait()
        with Automount(folder, lambda name: TMPFS) as second:
            hog.communicate()
            for process in asking:
                ended(process)
            assert {process.returncode for process in asking} <= {0, 1, -signal.SIGPIPE}
            until(lambda: ls(folder / "new") == "")
    print(f"reconnected {len(steps(second.log, 'reconnect'))} times")
    assert mounted_below(folder) == []


def make_catatonic(folder):
    """What the kernel does where a packet cannot be written."""
    root = os.open(folder, os.O_RDONLY)
    fcntl.ioctl(root, autofs.IOCTLS["AUTOFS_IOC_CATATONIC"].number("x86-64"), 0)
    os.close(root)


@isolated
def test_a_daemon_that_took_over_and_is_cut_off_connects_again_until_it_ends(folder):
    with daemon(folder) as first:
        first.kill()
        first.wait()
    with Automount(folder, lambda name: TMPFS) as second:
        for number in range(2):
            make_catatonic(folder)
            until(lambda number=number: ls(folder / str(number)) == "")
        assert len(steps(second.log, "reconnect")) == 3
    assert [event.what for event in second.log.events][-4:] == ["catatonic", "unmount", "unmount", "end"]
    assert mounted_below(folder) == []


@isolated
def test_a_daemon_that_took_over_and_broke_down_stays_disconnected(folder):
    with daemon(folder) as first:
        first.kill()
        first.wait()
    second = Automount(folder, lambda name: TMPFS, timeout=1)
    with pytest.raises(CallFailed, match="broke down"), second:  # noqa: PT012
        second._expire_one = None  # a bug, in the other thread
        ls(folder / "name")
        until(lambda: second._bug)
        time.sleep(0.5)
        assert "No such file" in ls(folder / "other")
    assert len(steps(second.log, "reconnect")) == 1
    assert mounted_below(folder) == []


@isolated
def test_who_finds_the_pipe_broken_dies_of_sigpipe_and_the_next_one_gets_enoent(folder):
    with daemon(folder) as first:
        first.kill()
        first.wait()
        codes = []
        for _ in range(2):
            asking = start("stat", f"{folder}/name")
            ended(asking)
            codes.append(asking.returncode)
    assert codes == [-signal.SIGPIPE, 1]
    subprocess.run(["umount", "-R", folder], check=True)


@isolated
def test_leaving_the_block_with_a_full_pipe_releases_everybody(folder):
    def slow(name):
        time.sleep(1)

    with Automount(folder, slow) as served:
        asking = [start("stat", f"{folder}/first"), *forty_at_once(folder)]
    assert {complaint(process) for process in asking} == {"No such file or directory"}
    assert len(steps(served.log, "missing")) < 5
    assert mounted_below(folder) == []


@pytest.mark.parametrize("direct", [False, True])
@isolated
def test_the_mount_that_a_pid_namespace_left_behind_is_refused_with_the_remedy(folder, direct):
    def leave():
        os.setsid()
        Automount(folder, lambda name: TMPFS, direct=direct).__enter__()
        return "serving"  # and ends, and with it its namespace

    assert first_of_a_pid_namespace(leave) == "serving"
    for _ in range(2):
        with pytest.raises(Unavailable) as refused, Automount(folder, lambda name: TMPFS, direct=direct):
            pytest.fail("served")
        said, remedy = str(refused.value).split(" Remedy: ")
        assert said == (
            f"autofs: {folder} was left by a daemon of another pid namespace, and only that one can have it back."
        )
    subprocess.run(remedy.split(), check=True)
    assert mounted_below(folder) == []
    with Automount(folder, lambda name: TMPFS, direct=direct):
        assert ("No such file" in ls(folder / "name")) == direct


@pytest.mark.parametrize("catatonic", [False, True])
@isolated
def test_the_mount_of_a_daemon_outside_of_our_pid_namespace_is_refused(folder, catatonic):
    def attempt():
        os.setsid()
        with pytest.raises((BadInput, Unavailable)) as refused, Automount(folder, lambda name: TMPFS):
            pytest.fail("served")
        return str(refused.value)

    with daemon(folder) as first:
        first.kill()
        first.wait()
    if catatonic:
        make_catatonic(folder)
    said = first_of_a_pid_namespace(attempt)
    assert ("was left by a daemon of another pid namespace" in said) == catatonic
    assert ("is served from another pid namespace, not to be seen from here" in said) != catatonic
    subprocess.run(["umount", "-R", folder], check=True)


@isolated
def test_who_is_outside_of_the_daemons_pid_namespace_gets_enoent_without_a_request(folder):
    ready, end = os.pipe(), os.pipe()

    def serve():
        os.setsid()
        with Automount(folder, lambda name: TMPFS) as served:
            os.write(ready[1], b"!")
            os.read(end[0], 1)
        return str([event.what for event in served.log.events])

    with ThreadPoolExecutor() as pool:
        events = pool.submit(first_of_a_pid_namespace, serve)
        os.read(ready[0], 1)
        assert "No such file" in ls(folder / "name")
        os.write(end[1], b"!")
        assert events.result() == "['serve', 'catatonic', 'end']"
    for fd in (*ready, *end):
        os.close(fd)


@isolated
def test_a_direct_mount_that_is_covered_is_taken_over_too(folder):
    with daemon(folder, "direct") as first:
        assert ls(folder) == ""
        first.kill()
        first.wait()
        with Automount(folder, lambda name: folder.parent / "source", timeout=1, direct=True):
            until(lambda: mounted_below(folder) == [str(folder)])
            assert ls(folder) == "hello"
    assert mounted_below(folder) == []


@isolated
def test_a_folder_that_is_served_is_refused_and_goes_on_being_served(folder):
    with Automount(folder, lambda name: TMPFS):
        with pytest.raises(BadInput, match=f"is served already, by process {os.getpid()}"), Automount(folder, len):
            pass
        with pytest.raises(BadInput, match="not an autofs of the direct kind"), Automount(folder, len, direct=True):
            pass
        assert ls(folder / "name") == ""


@isolated
def test_after_a_killed_daemon_requesters_end_when_killed_and_the_mount_can_be_removed(folder):
    with daemon(folder) as first:
        pending = start("ls", f"{folder}/stuck")
        until(lambda: waits_in_autofs(pending))
        first.kill()
    pending.kill()
    assert ended(pending) == ""
    subprocess.run(["umount", "-R", folder], check=True)


@isolated
def test_a_daemon_that_breaks_down_keeps_nobody_waiting_and_says_so(folder):
    served = Automount(folder, lambda name: TMPFS)
    served._missing = None  # a bug
    with pytest.raises(CallFailed, match="broke down: TypeError"), served:  # noqa: PT012
        assert "No such file" in ls(folder / "name")
        with pytest.raises(CallFailed, match="broke down"):
            list(served.follow())
    assert mounted_below(folder) == []


# ----------------------------------------------------------------------------------------- load

MANY = """
import json, os, sys, time
folder, processes, names = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
gate, go = os.pipe()
results, told = os.pipe()
for number in range(processes):
    if not os.fork():
        os.close(go)
        os.read(gate, 1)  # all at once, when the gate is closed
        begin = time.monotonic()
        try:
            found = os.listdir(f"{folder}/{number % names}") == ["hello"]
        except OSError as e:
            found = e.errno
        os.write(told, json.dumps([number % names, found, time.monotonic() - begin]).encode() + b"\\n")
        os._exit(0)
os.close(gate), os.close(told), os.close(go)
print(json.dumps([json.loads(line) for line in open(results)]))
"""


@isolated
def test_200_lookups_of_50_names_at_once_are_all_answered(folder):
    source = folder.parent / "source"
    with Automount(folder, lambda name: source if int(name) % 10 else None, timeout=1) as served:
        answers = json.loads(ended(start(sys.executable, "-c", MANY, os.fspath(folder), "200", "50"), 30))
        until(lambda: mounted_below(folder) == [str(folder)])
    assert len(answers) == 200
    assert all(found == (True if number % 10 else errno.ENOENT) for number, found, _ in answers)
    of = {what: [n for w, n in steps(served.log) if w == what] for what in ("missing", "mount", "unmount", "refused")}
    assert len(set(of["missing"])) == 50
    assert sorted(of["mount"]) == sorted(of["unmount"]) == sorted(str(n) for n in range(50) if n % 10)
    assert not of["refused"]
    slowest = max(seconds for *_, seconds in answers)
    assert slowest < 20
    print(f"200 lookups of 50 names: {len(of['missing'])} packets, the slowest was answered after {slowest:.3f} s")


# ----------------------------------------------------------------------------------------- 32 bits, and the un-fix


@pytest.fixture(scope="session")
def strict_reader(tmp_path_factory):
    """The program strict_reader.c, for i386."""
    made = tmp_path_factory.mktemp("reader") / "strict_reader"
    include = "-I/usr/include/x86_64-linux-gnu"  # where a cross compiler has removed /usr/include/asm
    source = Path(__file__).with_name("strict_reader.c")
    subprocess.run(["gcc", "-m32", include, "-Wall", "-Werror", source, "-o", made], check=True)
    return made


def queued(fd):
    """Bytes that wait in a pipe."""
    return struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0]


@contextmanager
def bare_autofs(folder):
    """An autofs mount whose daemon is to be: (read end, write end, root)."""
    read, write = os.pipe()
    mounts.mount(
        "test", str(folder), "autofs", options=f"fd={write},pgrp={os.getpgrp()},minproto=5,maxproto=5,indirect"
    )
    root = os.open(folder, os.O_RDONLY)
    try:
        yield read, write, root
    finally:
        for fd in (root, read, write):
            os.close(fd)
        subprocess.run(["umount", "-R", "-l", folder], check=True)


def two_requests(folder, strict_reader, fixed):
    """What the reader prints of two requests that wait for it, and the requesters."""
    with bare_autofs(folder) as (read, write, root):
        assert pipes.is_packet(write)  # the kernel's doing
        if not fixed:
            unfix(write)
        assert pipes.is_packet(write) == fixed
        asking = []
        for number, name in enumerate(("first", "second"), 1):
            asking.append(start("ls", f"{folder}/{name}"))
            until(lambda number=number: queued(read) == 304 * number)
        os.set_blocking(read, False)
        reader = subprocess.Popen(
            [strict_reader, folder, str(root)], stdin=read, stdout=subprocess.PIPE, text=True, pass_fds=[root]
        )
        printed = ended(reader)
        until(lambda: asking[0].poll() is not None)
        stuck = asking[1].poll() is None and waits_in_autofs(asking[1])
        for process in asking:
            process.kill()
            ended(process)
    return printed.splitlines(), stuck


@pytest.mark.needs("32-bit programs")
@isolated
def test_without_the_flag_a_32_bit_reader_loses_step_at_the_second_packet_on_this_kernel(folder, strict_reader):
    printed, stuck = two_requests(folder, strict_reader, fixed=False)
    [token] = re.findall(r"token (\d+)", printed[0])
    assert printed == [
        f"read 300 proto 5 type 3 token {token} ready 0",
        f"read 300 proto 0 type 5 token 3 ready {errno.EINVAL}",  # each member is what the one before it was
        "short 8 of 300",
    ]
    assert stuck


@pytest.mark.needs("32-bit programs")
@isolated
def test_with_the_flag_the_same_reader_serves_both(folder, strict_reader):
    printed, stuck = two_requests(folder, strict_reader, fixed=True)
    # Other mounts on this machine draw their tokens from the same counter.
    assert [re.sub(r"token \d+", "token N", line) for line in printed] == [
        *["read 300 proto 5 type 3 token N ready 0"] * 2,
        "short -1 of 300",
    ]
    assert not stuck


@isolated
def test_the_flag_of_another_process_is_cleared_through_a_borrowed_descriptor(folder):
    with Automount(folder, lambda name: TMPFS) as served:
        borrowed = pipes.borrow(os.getpid(), served.pipe)
        unfix(borrowed)
        os.close(borrowed)
        assert not pipes.is_packet(served.pipe)
        asking = [start("ls", f"{folder}/{number}") for number in range(20)]
        assert {ended(process) for process in asking} == {""}  # the daemon knows how long a packet is


# ----------------------------------------------------------------------------------------- Debian's automount


@contextmanager
def debian_automount(folder):
    """automount(8) on `folder`, with one map, in the foreground; nothing of the machine's own is used."""
    for path in ("/run", "/etc/auto.master.d"):
        mounts.mount("tmpfs", path, "tmpfs", options="mode=755")
    place = folder.parent
    (place / "map").write_text(f"source -fstype=bind :{place}/source\nempty -fstype=tmpfs :tmpfs\n")
    (place / "master").write_text(f"{folder} file:{place}/map --timeout=1\n")
    log = (place / "log").open("w")
    program = shutil.which("automount") or "/usr/sbin/automount"
    process = subprocess.Popen(
        [program, "-f", "-v", "--dont-check-daemon", place / "master"], process_group=0, stdout=log, stderr=log
    )
    try:
        until(lambda: f"{folder}" in mounted_below(folder) and "mounted indirect" in Path(log.name).read_text())
        yield process
        process.terminate()
        assert process.wait(15) == 0
    finally:
        process.kill()
        process.wait()
        log.close()
        for path in ("/etc/auto.master.d", "/run"):
            subprocess.run(["umount", "-R", "-l", path], check=True)


@contextmanager
def stopped(process):
    process.send_signal(signal.SIGSTOP)
    try:
        until(lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2][0] == "T")
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def copy_of_the_packet(process, folder):
    """What lies in the pipe of a daemon that is stopped: tee(2) leaves it there."""
    [autofs_mount] = [m for m in mounts.mounted() if m.point == str(folder)]
    name = f"pipe:[{autofs_mount.options['pipe_ino']}]"
    fds = [p for p in Path(f"/proc/{process.pid}/fd").iterdir() if os.readlink(p) == name]
    ours = os.open(fds[0], os.O_RDONLY | os.O_NONBLOCK)
    copy = pipes.packet_pipe()
    try:
        assert select.select([ours], [], [], 10)[0]
        libc = mounts.ctypes.CDLL(None, use_errno=True)
        assert libc.tee(ours, copy.write, mounts.ctypes.c_size_t(4096), 0) > 0
        return os.read(copy.read, 4096)
    finally:
        for fd in (ours, *copy):
            os.close(fd)


@pytest.mark.needs(program="automount")
@isolated
def test_debians_automount_is_served_packets_that_we_decode(folder):
    root = os.stat(folder.parent).st_dev
    with debian_automount(folder) as process:
        for name, uid in (("source", 0), ("empty", 1000), ("other", 0)):
            with stopped(process):
                asking = start("ls", f"{folder}/{name}", user=uid)
                data = copy_of_the_packet(process, folder)
                until(lambda asking=asking: waits_in_autofs(asking))
            said = ended(asking)
            packet = autofs.decode(data, "x86-64")
            truth = {"name": name.encode(), "uid": uid, "gid": 0, "pid": asking.pid, "tgid": asking.pid}
            assert packet.type == "missing_indirect"
            assert {key: packet.fields[key] for key in truth} == truth
            assert packet.fields["dev"] == os.stat(folder).st_dev != root
            assert len(data) == 304
            assert said.strip() == {"source": "hello", "empty": ""}.get(name, said.strip())
            assert ("No such file" in said) == (name == "other")
        until(lambda: mounted_below(folder) == [str(folder)], 15)  # expired, by its own doing
        assert ls(folder / "source") == "hello"
    assert mounted_below(folder) == []


# ----------------------------------------------------------------------------------------- /dev/autofs


@isolated
def test_dev_autofs_answers_in_a_struct_that_says_its_version_and_size(folder):
    version = control("VERSION")
    assert (version["ver_major"], version["size"]) == (1, 24)
    with Automount(folder, lambda name: TMPFS):
        [here] = [m for m in mounts.mounted() if m.point == str(folder)]
        root = control("OPENMOUNT", openmount={"devid": here.device}, path=str(folder))["ioctlfd"]
        assert control("PROTOVER", root)["protover"]["version"] == 5
        with pytest.raises(CallFailed, match="/dev/autofs SETPIPEFD: Device or resource busy"):
            control("SETPIPEFD", root, setpipefd={"pipefd": 0})
        os.close(root)
    with pytest.raises(BadInput, match=r"no call 'NONE', expected one of: VERSION, "):
        control("NONE")


# ----------------------------------------------------------------------------------------- the command


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@isolated
def test_the_command_serves_a_map_file_prints_what_happens_and_ends_cleanly(folder, signum):
    (folder.parent / "map").write_text(f"# two names\nsource {folder.parent}/source\nempty tmpfs\n")
    command = [sys.executable, "-m", "kernelnotes.cli", "autofs", "mount", folder, "--map", folder.parent / "map"]
    with subprocess.Popen(command, process_group=0, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as it:
        assert "serve" in it.stdout.readline()
        assert ls(folder / "source") == "hello"
        it.send_signal(signum)
        out, err = it.communicate(timeout=10)
    assert (it.returncode, err) == (0, "")
    assert [line.split()[2] for line in out.splitlines()] == [
        "missing",
        "mount",
        "ready",
        "catatonic",
        "unmount",
        "end",
    ]
    assert mounted_below(folder) == []


@isolated
def test_the_command_refuses_a_bad_map_before_it_mounts(folder):
    (folder.parent / "map").write_text("name src\n")
    command = [sys.executable, "-m", "kernelnotes.cli", "autofs", "mount", folder, "--map", folder.parent / "map"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"kernelnotes: {folder.parent}/map:1: 'name' has the source 'src'" in done.stderr
    assert mounted_below(folder) == []


# ----------------------------------------------------------------------------------------- bad input, no rights


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a /a\nb\n", r":2: 'b' has the source '', expected an absolute path or tmpfs"),
        ("a src", r":1: 'a' has the source 'src'"),
        ("# a\n\na/b /c", r":3: 'a/b' is no name"),
        ("a /a\na /b", r":2: 'a' stands here a second time"),
        (".. /a", r":1: '\.\.' is no name"),
        ("a" * 254 + " /a", r":1: .*is no name of at most 253 bytes"),
        ("a /a\0b", r":1: 'a' is no name"),
        ("a /" + "a" * (1 << 20), "longer than 1 MiB"),
        ("a /" + "é" * (1 << 19), "longer than 1 MiB"),  # in bytes
    ],
)
def test_a_map_file_that_is_none_is_refused_with_the_line(tmp_path, text, complaint):
    (tmp_path / "map").write_text(text)
    with pytest.raises(BadInput, match=complaint):
        read_map(tmp_path / "map")


def test_a_map_file_is_names_and_sources(tmp_path):
    (tmp_path / "map").write_bytes(b"# comment\n\n a /with a blank \nb\ttmpfs\n\xff /\xff\n")
    assert read_map(tmp_path / "map") == {"a": "/with a blank", "b": TMPFS, "\udcff": "/\udcff"}
    with pytest.raises(BadInput, match="nowhere: No such file"):
        read_map(tmp_path / "nowhere")


def test_what_is_no_folder_no_timeout_or_no_pipe_is_refused(tmp_path):
    with pytest.raises(BadInput, match="nowhere is no folder"):
        Automount(tmp_path / "nowhere", len)
    for timeout in (-1, 1.5, "1", True, 1 << 31):
        with pytest.raises(BadInput, match=r"timeout is .*, expected whole seconds from 0 to 2147483647"):
            Automount(tmp_path, len, timeout=timeout)
    with open(tmp_path / "file", "w") as file, pytest.raises(BadInput, match="is no pipe, expected the write end"):
        unfix(file.fileno())


@pytest.mark.needs("namespaces")
def test_who_may_not_mount_it_is_told_so_and_how_to_get_it(tmp_path):
    attempt = f"from kernelnotes.live.autofs import Automount\nwith Automount({str(tmp_path)!r}, len): pass"
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-c", attempt]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stderr.splitlines()[-1]
    assert said.startswith("kernelnotes.errors.Unavailable: autofs: ")
    assert "Operation not permitted. Remedy: run it as root" in said
