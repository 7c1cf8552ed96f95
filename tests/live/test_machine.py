"""`kernelnotes doctor`'s answers: right where another program can be asked, and nothing left behind."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest

from kernelnotes.errors import BadInput, Unavailable
from kernelnotes.live import machine, trial

linux = pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")
EXAMINE = "import json, sys; from dataclasses import asdict; from kernelnotes.live import machine; "
EXAMINE += "print(json.dumps([asdict(a) for a in machine.examine(sys.argv[1:] or machine.NAMES)]))"


def examine_under(prefix, *names, code=EXAMINE, **environment):
    """The answers of a new Python that `prefix` starts, by name."""
    command = [*prefix, sys.executable, "-c", code, *names]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | environment)
    return {a["name"]: machine.Ability(**a) for a in json.loads(done.stdout)}


def test_every_ability_is_answered_in_order_within_ten_seconds():
    start = time.monotonic()
    answers = machine.examine()
    assert time.monotonic() - start < 10
    assert [a.name for a in answers] == list(machine.NAMES)
    for a in answers:
        assert (a.detail != "", a.reason == "", a.remedy == "") == (a.available,) * 3


def test_an_unknown_ability_is_bad_input_that_lists_the_known_ones():
    with pytest.raises(BadInput, match=r"'tcp repare'.*tcp repair, packet pipes"):
        machine.examine(["tcp repare"])


def test_require_raises_the_reason_and_the_remedy(monkeypatch):
    monkeypatch.setattr(machine, "examine", lambda names: [machine.Ability(*names, False, "", "it is Monday", "wait")])
    with pytest.raises(Unavailable, match=r"^autofs: it is Monday\. Remedy: wait$"):
        machine.require("autofs")


@linux
def test_require_returns_what_it_found():
    assert machine.require("packet pipes").detail == "after writes of 3 and 3 bytes one read got 3"


# ------------------------------------------------------------------------------------- agreement with other programs


@linux
def test_namespaces_agrees_with_unshare():
    asked = subprocess.run(["unshare", "--user", "--net", "--map-root-user", "true"], check=False, capture_output=True)
    assert machine.examine(["namespaces"])[0].available == (asked.returncode == 0)


@linux
def test_net_admin_agrees_with_the_capability_set_of_this_process():
    [effective] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff")]
    in_first_namespace = Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]
    cap_net_admin = bool(int(effective.split()[1], 16) >> 12 & 1)
    assert machine.examine(["net admin"])[0].available == (cap_net_admin and in_first_namespace)


@pytest.mark.needs("autofs")
def test_autofs_where_it_mounted_is_a_known_file_system():
    assert "nodev\tautofs\n" in Path("/proc/filesystems").read_text()


@pytest.mark.needs("autofs")
def test_the_kernel_makes_the_pipe_of_an_autofs_mount_a_packet_pipe():
    assert machine.require("autofs").detail == "mounted and unmounted; the kernel made its pipe a packet pipe"


def test_numba_agrees_with_the_installed_packages():
    assert machine.examine(["numba"])[0].available == (importlib.util.find_spec("numba") is not None)


@linux
def test_readelf_reads_the_smallest_program_as_i386(tmp_path):
    program = tmp_path / "smallest"
    program.write_bytes(trial._smallest_i386_program())
    told = subprocess.run(["readelf", "-hl", program], capture_output=True, text=True, check=True)
    assert "Intel 80386" in told.stdout
    assert "0x8048054\n" in told.stdout
    assert not told.stderr
    assert program.stat().st_size == 91


def test_mountinfo_is_read_with_its_optional_fields_and_blanks():
    text = (
        "22 18 0:20 / /sys/fs/cgroup ro,nosuid shared:9 master:1 - tmpfs tmpfs ro,mode=755\n"
        "29 22 0:26 /user\\040one /sys/a\\040blank rw shared:10 - cgroup cgroup rw,memory\n"
    )
    assert trial.parse_mountinfo(text) == [
        ("/", "/sys/fs/cgroup", "tmpfs", "ro,mode=755", "0:20"),
        ("/user one", "/sys/a blank", "cgroup", "rw,memory", "0:26"),
    ]


def test_a_version_2_group_counts_where_it_hands_on_the_memory_controller(tmp_path):
    # As systemd lays it out: the session's own group hands on nothing, the user's manager hands on memory.
    own = tmp_path / "user.slice/user@1000.service/app.slice/shell.scope"
    own.mkdir(parents=True)
    for group in (tmp_path, *(g for g in tmp_path.rglob("*") if g.is_dir())):
        hands_on = "cpu memory pids" if group.name == "user@1000.service" else "cpu"
        (group / "cgroup.subtree_control").write_text(hands_on + "\n")
    mounted = [trial.Mount("/", str(tmp_path), "cgroup2", "rw,nsdelegate")]
    ours = "0::/user.slice/user@1000.service/app.slice/shell.scope\n"
    manager = tmp_path / "user.slice/user@1000.service"
    assert list(trial.memory_groups(mounted, ours)) == [(2, manager, "memory.max")]


def test_a_version_1_group_is_looked_for_from_the_mount_down_to_our_own(tmp_path):
    # As a container sees it: the mount shows /docker/x as its root.
    (tmp_path / "job").mkdir()
    mounted = [
        trial.Mount("/", "/elsewhere", "cgroup", "rw,cpu"),
        trial.Mount("/docker/x", str(tmp_path), "cgroup", "rw,memory"),
    ]
    ours = "5:cpu,cpuacct:/\n4:memory:/docker/x/job\n0::/\n"
    file = "memory.limit_in_bytes"
    assert list(trial.memory_groups(mounted, ours)) == [(1, tmp_path, file), (1, tmp_path / "job", file)]


# ------------------------------------------------------------------------------------- what is missing is named


@pytest.mark.needs("net admin")
def test_without_capabilities_each_lost_ability_says_what_was_refused_and_what_helps():
    lost = examine_under(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all"], "net admin", "tcp repair", "autofs", "filemap events"
    )
    for a in lost.values():
        assert not a.available or a.name == "tcp repair"
        assert "Operation not permitted" in a.reason + a.detail
        assert a.available or "root" in a.remedy


@pytest.mark.needs("namespaces")
def test_forbidden_user_namespaces_name_the_switch():
    shell = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"'
    answers = examine_under(["unshare", "-Ur", "sh", "-c", shell, "sh"], "namespaces")
    assert answers["namespaces"].reason == "user.max_user_namespaces is used up"
    assert answers["namespaces"].remedy == "sysctl user.max_user_namespaces=10000"


@pytest.mark.needs("namespaces", "tcp repair")
def test_in_a_network_namespace_of_its_own_an_ordinary_user_repairs_but_is_no_net_admin():
    answers = examine_under(["unshare", "-Urn"], "tcp repair", "net admin", "autofs")
    assert answers["tcp repair"].detail.startswith("TCP_REPAIR works as it is")
    assert not answers["net admin"].available
    assert "unshare -Urn" in answers["net admin"].remedy
    assert "root" in answers["autofs"].remedy


@pytest.mark.needs("32-bit programs")
def test_a_missing_compiler_is_not_blamed_on_the_kernel(tmp_path):
    answers = examine_under([], "32-bit programs", PATH=str(tmp_path))
    assert answers["32-bit programs"].reason == "the kernel runs 32-bit programs, but there is no gcc"
    assert answers["32-bit programs"].remedy == "apt-get install gcc-multilib"


@pytest.mark.needs("32-bit programs")
def test_a_compiler_that_only_makes_64_bit_programs_is_quoted(tmp_path):
    (tmp_path / "gcc").write_text("#!/bin/sh\necho 'ld: cannot find -lgcc' >&2\nexit 1\n")
    (tmp_path / "gcc").chmod(0o755)
    answers = examine_under([], "32-bit programs", PATH=f"{tmp_path}:{os.environ['PATH']}", CC="gcc")
    assert answers["32-bit programs"].reason.endswith("makes none: ld: cannot find -lgcc")
    assert answers["32-bit programs"].remedy == "apt-get install gcc-multilib"


@pytest.mark.needs("32-bit programs")
def test_a_kernel_that_refuses_is_not_blamed_on_the_compiler(monkeypatch):
    monkeypatch.setattr(trial, "_kernel_runs_i386", lambda: "Exec format error")
    outcome = trial.programs_32bit()
    assert outcome.reason == "the kernel refuses 32-bit programs: Exec format error"
    assert "CONFIG_IA32_EMULATION" in outcome.remedy


def test_a_numba_that_may_not_compile_is_not_available():
    answers = examine_under([], "numba", NUMBA_DISABLE_JIT="1")
    assert answers["numba"] == machine.Ability(
        "numba", False, reason="NUMBA_DISABLE_JIT is set", remedy="unset NUMBA_DISABLE_JIT"
    )


def test_elsewhere_than_on_linux_it_imports_and_says_linux_only():
    not_linux = "import os, sys; sys.platform = 'darwin'; sys.modules['fcntl'] = None; "
    not_linux += "[delattr(os, n) for n in ('pipe2', 'O_DIRECT', 'memfd_create', 'geteuid') if hasattr(os, n)]; "
    for answer in examine_under([], code=not_linux + EXAMINE).values():
        if answer.name != "numba":
            assert answer == machine.Ability(answer.name, False, reason="Linux only", remedy="a Linux machine")


def test_a_trial_that_breaks_is_told_apart_from_a_missing_ability(monkeypatch, tmp_path):
    (tmp_path / "broken.py").write_text("raise RuntimeError('a mistake of ours')")
    monkeypatch.setattr(trial, "__file__", str(tmp_path / "broken.py"))
    assert machine.examine(["numba"])[0].reason == "the trial itself failed: RuntimeError: a mistake of ours"


# ------------------------------------------------------------------------------------- nothing is left behind


def traces():
    """Everything of ours that could stay: mounts, control groups, tracing instances, files, processes, what is open."""
    groups = [g for m in trial.mounts() if m.fstype.startswith("cgroup") for g in Path(m.point).rglob("kernelnotes-*")]
    look = "mount -t tracefs nodev /mnt && ls /mnt/instances"
    instances = subprocess.run(["unshare", "-m", "sh", "-c", look], capture_output=True, text=True, check=False).stdout
    files = Path(tempfile.gettempdir()).glob("kernelnotes-doctor-*")
    namespaces = [os.readlink(f"/proc/self/ns/{ns}") for ns in ("user", "net", "mnt")]
    handles = [f"open: {fd}" for fd in os.listdir("/proc/self/fd")]
    return {
        *map(str, trial.mounts()),
        *map(str, groups),
        *instances.split(),
        *map(str, files),
        *namespaces,
        *handles,
    } | {f"process: {pid}" for pid in trials_running()}


def trials_running():
    """The processes that try something now."""
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if trial.__file__.encode() in cmdline.read_bytes().split(b"\0"):
                yield cmdline.parent.name


def what_stays(before):
    """What was not there before and is still there after five seconds; another test's things come and go."""
    deadline = time.monotonic() + 5
    while (stays := traces() - before) and time.monotonic() < deadline:
        time.sleep(0.05)
    return stays


@linux
def test_examining_leaves_nothing_behind():
    before = traces()
    machine.examine()
    assert not what_stays(before)


@linux
def test_running_out_of_time_is_told_and_leaves_nothing_behind(monkeypatch):
    before = traces()
    monkeypatch.setattr(machine, "TIMEOUT_S", 0.05)
    assert machine.examine(["numba"])[0].reason == "no answer within 0.05 s"
    machine.examine()
    assert not what_stays(before)


@linux
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("after_s", [0.1, 0.14, 0.2])
def test_being_stopped_while_examining_leaves_nothing_behind(how, after_s):
    before = traces()
    code = "from kernelnotes.live import machine; print(flush=True)\nwhile True: machine.examine()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as asking:
        asking.stdout.readline()
        time.sleep(after_s)
        asking.send_signal(how)
    assert not what_stays(before)


@linux
def test_a_trial_told_to_end_removes_what_it_made_in_the_kernel(tmp_path):
    # A plain folder stands for the control group: made, removed on SIGTERM.
    code = "import pathlib, sys, time; from kernelnotes.live import trial\n"
    code += "def wait():\n with trial._kernel_folder(pathlib.Path(sys.argv[2])):\n"
    code += "  print('made', flush=True); time.sleep(60)\n"
    code += "trial.TRIALS['wait'] = wait; trial._main(sys.argv[1])"
    folder = tmp_path / "group"
    with subprocess.Popen([sys.executable, "-c", code, "wait", folder], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "made\n"
        assert folder.is_dir()
        child.terminate()
    assert not folder.exists()
