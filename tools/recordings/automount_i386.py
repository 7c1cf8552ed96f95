"""Debian's automount for i386 on a 64-bit kernel: as it is, with the flag cleared, and as it was in 2012.

    python tools/recordings/automount_i386.py            as root on x86-64 Debian; writes automount-*.txt of the package

The program and what it needs are fetched as packages into a folder of their own, with an apt configuration of its own:
the machine's packages stay as they are.  Each run has a mount and pid namespace of its own, and ends with it.  Needs
strace, unshare, setarch.  In every run three names are asked for, one after the other.

    as it is        the kernel writes 304 bytes as a packet, the program wants 300
    un-fixed        O_DIRECT cleared on the write end: 304 bytes into a plain pipe, as before May 2012
    relay           packets pass through us, who hand on their first 300 bytes in a plain pipe: what Linux 3.3-rc5 did
    old name        setarch --uname-2.6: automount takes the kernel for one before 3.3, and so wants 304
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from kernelnotes.live import mounts, pipes
from kernelnotes.live.autofs import control, unfix
from kernelnotes.live.origin import provenance

RUNS = {  # name of the transcript: program, change of the pipe, old name of the kernel
    "automount-i386": ("i386", "", False),
    "automount-i386-old": ("i386", "", True),
    "automount-i386-unfixed": ("i386", "unfix", False),
    "automount-i386-unfixed-old": ("i386", "unfix", True),
    "automount-i386-relay": ("i386", "relay", False),
    "automount-i386-relay-old": ("i386", "relay", True),
    "automount-amd64-unfixed": ("amd64", "unfix", False),
}
CHANGES = {
    "": "",
    "unfix": ", O_DIRECT cleared on its pipe",
    "relay": ", with a relay that hands on 300 bytes of each packet in a plain pipe",
}
NAMES = ("one", "two", "three")
PATIENCE_S = 3.0
PACKAGES = ("autofs", "mount")


# ------------------------------------------------------------------------------------------- the packages


def fetch(architecture: str, folder: Path) -> Path:
    """A folder with the packages and all that they depend on, unpacked; nothing is installed."""
    apt, root = folder / "apt", folder / "root"
    for name in ("state/lists/partial", "cache/archives/partial"):
        (apt / name).mkdir(parents=True)
    (apt / "status").touch()
    (apt / "conf").write_text(
        f'APT::Sandbox::User "root";\nAPT::Architecture "{architecture}";\n'
        f'APT::Architectures {{ "{architecture}"; }};\n'
        f'Dir::State "{apt}/state";\nDir::State::status "{apt}/status";\nDir::Cache "{apt}/cache";\n'
    )
    environment = os.environ | {"APT_CONFIG": str(apt / "conf")}
    download = ["apt-get", "install", "-qq", "-y", "--download-only", "--no-install-recommends", *PACKAGES]
    # One list of several may be missing for the moment: what is needed shows when it is downloaded.
    subprocess.run(["apt-get", "update", "-qq"], env=environment, check=False, stdout=subprocess.DEVNULL)
    subprocess.run(download, env=environment, check=True, stdout=subprocess.DEVNULL)
    for package in sorted((apt / "cache/archives").glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)
    for name in ("proc", "dev", "run", "tmp", "etc/auto.master.d", "auto"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "var/run").symlink_to("../run")
    (root / "etc/autofs.conf").touch()
    (root / "etc/auto.master").write_text("/auto file:/etc/auto.map --timeout=600\n")
    (root / "etc/auto.map").write_text("".join(f"{name} -fstype=tmpfs :tmpfs\n" for name in NAMES))
    return root


# ------------------------------------------------------------------------------------------- a run, inside


def inside(root: Path, change: str, old: bool) -> None:
    """The run, told on standard output; in namespaces of its own, of which it is the first process."""
    os.setpgid(0, 0)  # a group that this namespace has a number for; no session, whose leader could not join another
    mounts.mount("proc", str(root / "proc"), "proc")
    mounts.mount("/dev", str(root / "dev"), flags=mounts.MS_BIND)
    mounts.mount("tmpfs", str(root / "run"), "tmpfs")
    trace, log = root / "run/trace", root / "run/log"
    command = ["chroot", str(root), "/usr/sbin/automount", "-f", "-d", "--dont-check-daemon", "/etc/auto.master"]
    command = [*(["setarch", "x86_64", "--uname-2.6"] if old else []), *command]
    print("$", " ".join([*(["setarch --uname-2.6"] if old else []), "automount -f -d &"]))
    with open(log, "w") as file:
        subprocess.Popen(["strace", "-f", "-s", "4", "-e", "trace=read", "-o", trace, *command], stderr=file)
        served = until(lambda: next((m for m in mounts.mounted() if m.fstype == "autofs"), None))
        until(lambda: "st_ready(): state = 0 path /auto" in log.read_text())
        alter(served, change)
        asked = [ask(root, name) for name in NAMES]
    time.sleep(0.5)
    print("\nstrace: the reads of the pipe\n", *pipe_reads(trace.read_text()), sep="\n")
    print("\nautomount's own log\n", *told(log.read_text()), sep="\n")
    for process in asked:
        process.kill()


def until(condition):
    """What the condition comes to once it is true."""
    deadline = time.monotonic() + 20
    while not (found := condition()):
        if time.monotonic() > deadline:
            sys.exit("it did not happen")
        time.sleep(0.02)
    return found


def daemon_and_pipe(served: mounts.Mounted) -> tuple[int, int, int]:
    """Process id of automount, and its file descriptors of the pipe's read and write end."""
    wanted = f"pipe:[{served.options['pipe_ino']}]"
    for fd in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if os.readlink(fd) == wanted:
                pid = int(fd.parts[2])
                ends = [int(f.name) for f in fd.parent.iterdir() if os.readlink(f) == wanted]
                return pid, min(ends), max(ends)
    sys.exit("no process holds the pipe")


def alter(served: mounts.Mounted, change: str) -> None:
    pid, read, write = daemon_and_pipe(served)
    if change == "unfix":
        borrowed = pipes.borrow(pid, write)
        unfix(borrowed)
        os.close(borrowed)
    elif change == "relay":
        # Whoever sets a pipe becomes, with its group, the daemon: so we join automount's.
        os.setpgid(0, int(served.options["pgrp"]))
        onward = os.open(f"/proc/{pid}/fd/{read}", os.O_WRONLY)
        ours = pipes.packet_pipe()
        root = control("OPENMOUNT", openmount={"devid": served.device}, path=served.point)["ioctlfd"]
        control("CATATONIC", root)
        control("SETPIPEFD", root, setpipefd={"pipefd": ours.write})
        threading.Thread(target=relay, args=(ours.read, onward), daemon=True).start()


def relay(read: int, onward: int) -> None:
    while packet := os.read(read, select.PIPE_BUF):
        os.write(onward, packet[:300])


def ask(root: Path, name: str) -> subprocess.Popen[str]:
    print(f"$ ls -d auto/{name}/.")
    process = subprocess.Popen(
        ["ls", "-d", f"auto/{name}/."], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        process_group=0,
    )  # fmt: skip
    try:
        print(process.communicate(timeout=PATIENCE_S)[0], end="")
    except subprocess.TimeoutExpired:
        of = Path("/proc", str(process.pid))
        letter = of.joinpath("stat").read_text().rpartition(") ")[2][0]
        print(f"(no answer within {PATIENCE_S:g} s: state {letter}, {of.joinpath('wchan').read_text()})")
    return process


# ------------------------------------------------------------------------------------------- what is told of it


def pipe_reads(trace: str) -> list[str]:
    """What the thread that reads packets read from its pipe, from the first packet on."""
    lines = [line.partition(" ")[::2] for line in trace.splitlines()]
    first = next(n for n, (_, call) in enumerate(lines) if re.search(r"read\(\d+, .*, 30[04]\) ", call))
    reader, fd = lines[first][0], re.search(r"read\((\d+)", lines[first][1])[1]
    calls = [call.strip() for thread, call in lines[first:] if thread == reader]
    reads = [call for call in calls if call.startswith((f"read({fd},", "<... read resumed>"))]
    return [read if "=" in read or "<" in read else f"{read} (and here it waits)" for read in reads]


def told(log: str) -> list[str]:
    """The lines of the log about packets, without times."""
    wanted = re.compile(r"handle_packet|get_pkt|unknown packet|mounted|attempting to mount|can't find|kernel")
    return [line.split("]: ")[-1] for line in log.splitlines() if wanted.search(line)]


# ------------------------------------------------------------------------------------------- all of them


def transcript(name: str, roots: dict[str, Path]) -> str:
    architecture, change, old = RUNS[name]
    flags = ["--mount", "--propagation", "private", "--pid", "--fork", "--mount-proc", "--kill-child"]
    command = [
        "unshare",
        *flags,
        sys.executable,
        __file__,
        "--inside",
        roots[architecture],
        change,
        "old" if old else "",
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=120)
    version = subprocess.run(
        ["dpkg-deb", "-f", next(roots[architecture].parent.glob("apt/cache/archives/autofs_*.deb")), "Version"],
        stdout=subprocess.PIPE, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    what = f"Debian's autofs {version} for {architecture}{CHANGES[change]}"
    origin = provenance(what)
    return f"Kernel: {origin.kernel}\nCommand: {what}\nDate: {origin.date}\n\n{done.stdout}"


def main() -> None:
    if sys.argv[1:2] == ["--inside"]:
        # Output first, then away with everything that still waits.
        inside(Path(sys.argv[2]), sys.argv[3], bool(sys.argv[4]))
        sys.stdout.flush()
        os._exit(0)
    for program in ("strace", "unshare", "setarch", "apt-get"):
        if not shutil.which(program):
            sys.exit(f"{program} is needed")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    target = Path(__file__).resolve().parents[2] / "kernelnotes" / "recordings"
    with tempfile.TemporaryDirectory() as folder:
        roots = {name: fetch(name, Path(folder, name)) for name in ("i386", "amd64")}
        for name in RUNS:
            (target / f"{name}.txt").write_text(transcript(name, roots))
            print(name)


if __name__ == "__main__":
    main()
