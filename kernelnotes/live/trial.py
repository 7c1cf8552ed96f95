"""What `machine` asks, tried: each function tries one ability for real and says how it went.

Most run as `python trial.py NAME`, a process of its own that may change its namespaces, mount and be stopped; the
answer is one line of JSON. Mounts live in a private mount namespace and die with the process; a control group and a
tracing instance, which would not, are removed on every way out, SIGTERM included. Standard library only, so that the
answer does not depend on what is installed.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

TCP_REPAIR, SO_RCVBUFFORCE, PR_SET_PDEATHSIG = 19, 33, 1  # include/uapi/linux/tcp.h, asm-generic/socket.h, prctl.h
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000  # include/uapi/linux/sched.h
MS_REC, MS_PRIVATE = 0x4000, 0x40000  # include/uapi/linux/mount.h
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1  # include/uapi/linux/sockios.h, if.h

FILEMAP_EVENTS = (  # include/trace/events/filemap.h
    "mm_filemap_add_to_page_cache",
    "mm_filemap_delete_from_page_cache",
    "mm_filemap_get_pages",
    "mm_filemap_fault",
    "mm_filemap_map_pages",
)
AS_ROOT = "run it as root (in a container: a privileged one)"


class Outcome(NamedTuple):
    """How a trial went: `detail` where it worked; `reason` and `remedy` where it did not."""

    available: bool
    detail: str = ""
    reason: str = ""
    remedy: str = ""


def works(detail: str) -> Outcome:
    """It was tried and it worked."""
    return Outcome(True, detail=detail)


def fails(reason: str, remedy: str) -> Outcome:
    """It was tried and did not work, for this reason; this would help."""
    return Outcome(False, reason=reason, remedy=remedy)


# ---------------------------------------------------------------------------------------- the C library's share


def _libc(call: str, *args: Any) -> None:
    """Call a function of the C library; OSError with the kernel's errno where it returns -1."""
    # os.unshare is Python 3.12, mount(2) is in no Python.
    function = getattr(ctypes.CDLL(None, use_errno=True), call)
    if function(*args) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


def _mount(source: str, target: str, fstype: str, options: str = "") -> None:
    _libc("mount", source.encode(), target.encode(), fstype.encode(), ctypes.c_ulong(0), options.encode())


@contextmanager
def _scratch_mounts() -> Iterator[Path]:
    """An empty folder in a tmpfs that only this process sees; what is mounted below it ends with the process."""
    _libc("unshare", CLONE_NEWNS)
    _libc("mount", None, b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None)
    scratch = tempfile.gettempdir()
    _mount("kernelnotes", scratch, "tmpfs", "size=64k,mode=700")
    try:
        yield Path(scratch)
    finally:
        _libc("umount2", scratch.encode(), 2)  # MNT_DETACH


def _said(e: OSError) -> str:
    """The kernel's words, after the file or the call they are about."""
    return f"{e.filename}: {e.strerror}" if e.filename else str(e.strerror)


def _sysctl(name: str) -> str:
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return ""


# ---------------------------------------------------------------------------------------- namespaces, TCP_REPAIR


def _enter_namespaces() -> None:
    """Move this process into a user and network namespace of its own, where it is root."""
    uid, gid = os.geteuid(), os.getegid()
    _libc("unshare", CLONE_NEWUSER | CLONE_NEWNET)
    # The group may only be mapped once setgroups is off: user_namespaces(7).
    for file, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        try:
            Path("/proc/self", file).write_text(text)
        except OSError as e:
            e.filename = file
            raise


def _lo_up() -> None:
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        request = fcntl.ioctl(s, SIOCGIFFLAGS, b"lo".ljust(40, b"\0"))
        flags = int.from_bytes(request[16:18], sys.byteorder) | IFF_UP
        fcntl.ioctl(s, SIOCSIFFLAGS, request[:16] + flags.to_bytes(2, sys.byteorder) + request[18:])


def _no_namespaces(e: OSError) -> Outcome:
    """Several switches can forbid user namespaces; name the one that is set."""
    if e.errno == errno.ENOSPC:
        closed = next((n for n in ("user", "net") if _sysctl(f"user/max_{n}_namespaces") == "0"), "user")
        return fails(f"user.max_{closed}_namespaces is used up", f"sysctl user.max_{closed}_namespaces=10000")
    if _sysctl("kernel/unprivileged_userns_clone") == "0":
        return fails("kernel.unprivileged_userns_clone is 0", "sysctl kernel.unprivileged_userns_clone=1")
    if _sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1":
        switch = "kernel.apparmor_restrict_unprivileged_userns"
        return fails(f"{switch} is 1", f"sysctl {switch}=0")
    if e.errno == errno.EINVAL:
        return fails(_said(e), "a kernel built with CONFIG_USER_NS and CONFIG_NET_NS")
    return fails(
        _said(e),
        "outside a container, or in one that allows unshare (docker run --security-opt seccomp=unconfined)",
    )


def namespaces() -> Outcome:
    """A user and network namespace of one's own, with its loopback interface brought up."""
    try:
        _enter_namespaces()
        _lo_up()
    except OSError as e:
        return _no_namespaces(e)
    return works("user + network namespace made, its loopback is up")


def net_admin() -> Outcome:
    """CAP_NET_ADMIN in the first user namespace: SO_RCVBUFFORCE asks for nothing else."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            s.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 4096)
        except OSError as e:
            remedy = f"{AS_ROOT}; a network namespace of one's own, `unshare -Urn COMMAND`, is enough for most chapters"
            return fails(f"SO_RCVBUFFORCE: {_said(e)}", remedy)
    return works("SO_RCVBUFFORCE was accepted")


def _repair_on_and_off() -> str:
    """Why a fresh TCP socket would not enter repair mode; "" where it did."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
        try:
            s.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        except OSError as e:
            return _said(e)
        s.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 0)
    return ""


def tcp_repair() -> Outcome:
    """TCP_REPAIR on a fresh socket, as we are and inside a user and network namespace."""
    here = _repair_on_and_off()
    try:
        _enter_namespaces()
        inside = _repair_on_and_off()
    except OSError as e:
        inside = _no_namespaces(e).reason
    if not here:
        return works("TCP_REPAIR works as it is" + ("" if inside else ", and in a user + network namespace"))
    if not inside:
        return works(f"TCP_REPAIR works in a user + network namespace (as it is: {here})")
    return fails(
        f"TCP_REPAIR: {here}; in a user + network namespace: {inside}",
        "run it as root, or allow user namespaces (see `namespaces`)",
    )


# ------------------------------------------------------------------------------------------------ pipes, autofs


def packet_pipes() -> Outcome:
    """Two writes of 3 bytes into a pipe made with O_DIRECT: one read gets 3 bytes, not 6."""
    try:
        r, w = os.pipe2(os.O_DIRECT | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as e:
        return fails(f"pipe2(O_DIRECT): {_said(e)}", "Linux 3.4 or later")
    try:
        os.write(w, b"one")
        os.write(w, b"two")
        got = os.read(r, 4096)
    finally:
        os.close(r)
        os.close(w)
    if got != b"one":
        return fails(f"after writes of 3 and 3 bytes one read got {len(got)}", "Linux itself, not an imitation of it")
    return works("after writes of 3 and 3 bytes one read got 3")


def autofs() -> Outcome:
    """An autofs mount in a private mount namespace."""
    import fcntl

    r, w = os.pipe2(os.O_CLOEXEC)
    try:
        with _scratch_mounts() as scratch:
            target = scratch / "autofs"
            target.mkdir()
            # Mounting asks the kernel for the module, so /proc/filesystems is read after it.
            _mount("kernelnotes", str(target), "autofs", f"fd={w},pgrp={os.getpgrp()},minproto=5,maxproto=5")
            packets = fcntl.fcntl(w, fcntl.F_GETFL) & os.O_DIRECT
            _libc("umount2", str(target).encode(), 0)
    except OSError as e:
        if e.errno == errno.ENODEV:
            return fails("the kernel has no autofs (nothing in /proc/filesystems)", "modprobe autofs4")
        return fails(_said(e), AS_ROOT)
    finally:
        os.close(r)
        os.close(w)
    return works(f"mounted and unmounted; the kernel {'made' if packets else 'did not make'} its pipe a packet pipe")


# --------------------------------------------------------------------------------------------- 32-bit programs


def _smallest_i386_program() -> bytes:
    """An ELF file of 91 bytes that asks i386's system call 1, exit(0): tells the kernel's share from the compiler's."""
    code = bytes.fromhex("31db 31c0 40 cd80")  # xor ebx,ebx; xor eax,eax; inc eax; int 0x80
    base, header = 0x08048000, 52 + 32
    size = header + len(code)

    def words(width: int, *values: int) -> bytes:
        return b"".join(v.to_bytes(width, "little") for v in values)

    return (
        b"\x7fELF\x01\x01\x01".ljust(16, b"\0")
        + words(2, 2, 3)  # executable, EM_386
        + words(4, 1, base + header, 52, 0, 0)  # version, entry, program headers, section headers, flags
        + words(2, 52, 32, 1, 0, 0, 0)
        + words(4, 1, 0, base, base, size, size, 5, 0x1000)  # PT_LOAD, read and execute
        + code
    )


def _kernel_runs_i386() -> str:
    """Why the kernel would not run a 32-bit program; "" where it did."""
    fd = os.memfd_create("kernelnotes-i386", 0)
    try:
        os.write(fd, _smallest_i386_program())
        done = subprocess.run([f"/proc/self/fd/{fd}"], pass_fds=[fd], check=False)
    except OSError as e:
        return _said(e)
    finally:
        os.close(fd)
    return "" if done.returncode == 0 else f"it ended with status {done.returncode}"


@contextmanager
def _folder() -> Iterator[Path]:
    """A temporary folder, removed on every way out."""
    # SIGTERM has to wait while there is a folder that nobody would remove: just after it is made.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        with tempfile.TemporaryDirectory(prefix="kernelnotes-doctor-") as folder:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            yield Path(folder)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# asm/types.h is where a cross compiler of Debian breaks -m32: it removes gcc-multilib and with it /usr/include/asm.
C_SOURCE = "#include <asm/types.h>\n#include <stdio.h>\nint main(void) { return sizeof(void *) == 4 ? 0 : 1; }\n"


def programs_32bit() -> Outcome:
    """A C program compiled with -m32, and run."""
    if platform.machine() not in ("x86_64", "i686"):
        return fails(f"i386 programs do not run on {platform.machine()}", "an x86-64 machine; models need none")
    refused = _kernel_runs_i386()
    if refused:
        return fails(
            f"the kernel refuses 32-bit programs: {refused}",
            "a kernel with CONFIG_IA32_EMULATION, booted with ia32_emulation=1",
        )
    compiler = shutil.which(os.environ.get("CC", "gcc")) or shutil.which("gcc")
    if not compiler:
        return fails("the kernel runs 32-bit programs, but there is no gcc", "apt-get install gcc-multilib")
    with _folder() as folder:
        program = folder / "program"
        for extra in ([], ["-I/usr/include/x86_64-linux-gnu"]):
            command = [compiler, "-m32", *extra, "-xc", "-", "-o", str(program)]
            built = subprocess.run(command, input=C_SOURCE, text=True, capture_output=True, check=False)
            if built.returncode == 0:
                break
        else:
            complaint = next((line for line in built.stderr.splitlines() if "error" in line or "cannot" in line), "")
            return fails(
                f"the kernel runs 32-bit programs, but {compiler} makes none: {complaint.strip() or 'it says nothing'}",
                "apt-get install gcc-multilib",
            )
        try:
            status = subprocess.run([program], check=False).returncode
        except OSError as e:
            return fails(f"a compiled 32-bit program does not start: {_said(e)}", "apt-get install libc6-i386")
    if status:
        return fails(f"a compiled 32-bit program ended with status {status}", "apt-get install gcc-multilib libc6-i386")
    return works(" ".join(["compiled and run with gcc -m32", *extra]))


# ------------------------------------------------------------------------------------------------ control groups


class Mount(NamedTuple):
    """A line of /proc/self/mountinfo: which folder of the file system (`root`) on `device` is seen at `point`."""

    root: str
    point: str
    fstype: str
    options: str
    device: str = ""


def mounts() -> list[Mount]:
    """What this process sees mounted."""
    return parse_mountinfo(Path("/proc/self/mountinfo").read_text())


def parse_mountinfo(text: str) -> list[Mount]:
    r"""The mounts in a /proc/pid/mountinfo, where a blank in a name is written \040.  Source: proc(5)."""
    found = []
    for line in text.splitlines():
        left, right = line.split(" - ")
        device, *names = left.split()[2:5]
        root, point = (re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), name) for name in names)
        found.append(Mount(root, point, right.split()[0], right.split()[-1], device))
    return found


def _groups_down_to_ours(mount: Mount, ours: str) -> list[Path]:
    """The mounted control group first, then each group on the way down to our own."""
    inside = ours.removeprefix(mount.root.rstrip("/")).strip("/") if ours.startswith(mount.root) else ""
    own = Path(mount.point, inside)
    return [g for g in (*reversed(own.parents), own) if g.is_relative_to(mount.point) and g.is_dir()]


def memory_groups(mounted: list[Mount], ours: str) -> Iterator[tuple[int, Path, str]]:
    """Version, control group and limit file, wherever a child with a memory limit could be made.

    `ours` is the text of /proc/self/cgroup: lines `number:controllers:path`, without controllers for version 2.
    """
    paths = {c: path for line in ours.splitlines() for _, names, path in [line.split(":", 2)] for c in names.split(",")}
    for m in mounted:
        if m.fstype == "cgroup" and "memory" in m.options.split(","):
            yield from ((1, g, "memory.limit_in_bytes") for g in _groups_down_to_ours(m, paths.get("memory", "/")))
        elif m.fstype == "cgroup2":
            for g in _groups_down_to_ours(m, paths.get("", "/")):
                # A child gets only the controllers its parent hands on; handing on more would change the machine.
                if "memory" in (g / "cgroup.subtree_control").read_text().split():
                    yield 2, g, "memory.max"


@contextmanager
def _kernel_folder(path: Path) -> Iterator[Path]:
    """A folder that makes something in the kernel (a control group, a tracing instance), removed on every way out."""
    try:
        path.mkdir()
        yield path
    finally:
        with suppress(FileNotFoundError):
            path.rmdir()


def _limit_a_child(group: Path, file: str) -> str:
    """Why no group with a memory limit can be made below `group`; "" where it was made and removed."""
    try:
        with _kernel_folder(group / f"kernelnotes-doctor-{os.getpid()}") as child:
            (child / file).write_text(str(1 << 26))
    except OSError as e:
        return _said(e)
    return ""


def cgroup_memory() -> Outcome:
    """A control group with a memory limit, version 1 or 2."""
    told = ""
    for version, group, file in memory_groups(mounts(), Path("/proc/self/cgroup").read_text()):
        refused = _limit_a_child(group, file)
        if not refused:
            return works(f"version {version}: a child of {group} took a limit")
        told = told or f"version {version}: {refused}"
    if told:
        return fails(told, f"{AS_ROOT}, or `systemd-run --user --scope -p Delegate=yes COMMAND`")
    if any(line.split()[::3] == ["memory", "0"] for line in Path("/proc/cgroups").read_text().splitlines()):
        return fails("the memory controller is switched off", "boot with cgroup_enable=memory")
    return fails(
        "no mounted control group hands on the memory controller",
        "echo +memory > /sys/fs/cgroup/cgroup.subtree_control, as root",
    )


# ------------------------------------------------------------------------------------------------ tracepoints


def _try_instance(tracing: Path, where: str) -> Outcome:
    with _kernel_folder(tracing / "instances" / f"kernelnotes-doctor-{os.getpid()}") as instance:
        has = [name for name in FILEMAP_EVENTS if (instance / "events/filemap" / name).is_dir()]
        if "mm_filemap_add_to_page_cache" not in has or "mm_filemap_delete_from_page_cache" not in has:
            return fails("the kernel has no filemap events", "a kernel built with CONFIG_TRACING")
        enable = instance / "events/filemap" / has[0] / "enable"
        enable.write_text("1")
        enable.write_text("0")
    lacking = [name.removeprefix("mm_filemap_") for name in FILEMAP_EVENTS if name not in has]
    names = ", ".join(name.removeprefix("mm_filemap_") for name in has)
    return works(f"{where}; mm_filemap_: {names}" + (f"; not in this kernel: {', '.join(lacking)}" if lacking else ""))


def filemap_events() -> Outcome:
    """A tracing instance with the page cache's tracepoints, in the mounted tracefs or else in a private mount."""
    seen = [Path(m.point) for m in mounts() if m.fstype == "tracefs"]
    seen += [Path(m.point, "tracing") for m in mounts() if m.fstype == "debugfs"]
    try:
        for tracing in seen:
            if (tracing / "instances").is_dir():
                return _try_instance(tracing, f"instance made in {tracing}")
        with _scratch_mounts() as scratch:
            tracing = scratch / "tracing"
            tracing.mkdir()
            _mount("nodev", str(tracing), "tracefs")
            try:
                return _try_instance(tracing, "tracefs is not mounted, instance made in a private mount of it")
            finally:
                _libc("umount2", str(tracing).encode(), 0)
    except OSError as e:
        if e.errno == errno.ENODEV:
            return fails("the kernel has no tracefs", "a kernel built with CONFIG_TRACING")
        what = "tracefs" if seen else "tracefs is not mounted, and a private mount of it"
        remedy = AS_ROOT if seen else "as root: mount -t tracefs nodev /sys/kernel/tracing"
        return fails(f"{what}: {_said(e)}", remedy)


# ------------------------------------------------------------------------------------------------ kernel types


def kernel_types() -> Outcome:
    """The kernel's own types, BTF, shown to everyone."""
    file = Path("/sys/kernel/btf/vmlinux")
    try:
        with file.open("rb") as types:
            magic = types.read(2)
    except FileNotFoundError:
        return fails(f"the kernel shows no types: there is no {file}", "a kernel built with CONFIG_DEBUG_INFO_BTF")
    except OSError as e:
        return fails(_said(e), AS_ROOT)
    if int.from_bytes(magic, sys.byteorder) != 0xEB9F:  # BTF_MAGIC, include/uapi/linux/btf.h
        return fails(f"{file} begins with {magic.hex()}, not as BTF does", "Linux itself, not an imitation of it")
    return works(f"{file} is readable, {file.stat().st_size / 1e6:.1f} MB of BTF")


# ------------------------------------------------------------------------------------------------ numba


def numba() -> Outcome:
    """A function compiled by numba."""
    try:
        package: Any = importlib.import_module("numba")
    except ImportError as e:
        return fails(f"{e}", "pip install numba; without it the same code runs as plain Python, slower")
    if package.config.DISABLE_JIT:
        return fails("NUMBA_DISABLE_JIT is set", "unset NUMBA_DISABLE_JIT")
    successor = package.njit(lambda n: n + 1)
    if successor(41) != 42 or not successor.signatures:
        return fails(f"numba {package.__version__} did not compile n + 1", "pip install --force-reinstall numba")
    return works(f"numba {package.__version__} compiled a function")


TRIALS = {
    "namespaces": namespaces,
    "net admin": net_admin,
    "tcp repair": tcp_repair,
    "packet pipes": packet_pipes,
    "autofs": autofs,
    "32-bit programs": programs_32bit,
    "cgroup memory": cgroup_memory,
    "filemap events": filemap_events,
    "kernel types": kernel_types,
    "numba": numba,
}


def _main(name: str) -> None:
    # SIGTERM leaves through the `finally`s; it also comes when the asking process dies, maybe for the second time.
    def leave(*_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.exit(1)

    signal.signal(signal.SIGTERM, leave)
    if sys.platform == "linux":
        _libc("prctl", PR_SET_PDEATHSIG, signal.SIGTERM)
    print(json.dumps(TRIALS[name]()._asdict()))


if __name__ == "__main__":
    _main(sys.argv[1])
