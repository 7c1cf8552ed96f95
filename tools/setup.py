"""Prepare a clone: system programs, `.venv` with every Python package, the book's JavaScript.

    python3 tools/setup.py book|test|lab|bench     # what `make` runs first; quick when nothing changed
    python3 tools/setup.py --check test            # only say what this machine lacks; status 1 if anything

As root on Debian the missing system packages are listed, then installed. Everyone else is told exactly what is missing
and how to get it, and the set-up goes on where it can. Needs Python 3.11 and nothing but its standard library.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "kernelnotes-setup"  # complete only when everything is installed
DECIDING = ("pyproject.toml", "constraints.txt", "requirements.txt", "tools/setup.py")
EXTRAS = ".[book,live,dask,dev]"
APT = ["apt-get", "install", "-y", "--no-install-recommends"]

# ---------------------------------------------------------------------------------------- system packages


def has_venv() -> bool:
    """Debian ships venv without the ensurepip that it needs."""
    code = "import ensurepip, venv"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def has_32bit_compiler() -> bool:
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return True  # no such programs here; `kernelnotes doctor` says so
    if not shutil.which("gcc"):
        return False
    with tempfile.TemporaryDirectory() as folder:
        command = ["gcc", "-m32", "-xc", "-", "-o", os.path.join(folder, "program")]
        source = b"#include <asm/types.h>\n#include <stdio.h>\nint main(void) { return 0; }\n"
        return subprocess.run(command, input=source, capture_output=True, check=False).returncode == 0


def has_dejavu() -> bool:
    folders = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts")
    return any(True for f in folders for _ in Path(f).expanduser().rglob("DejaVuSans.ttf"))


def has_server(name: str) -> bool:
    # Not in every PATH: only root is meant to run it.
    return bool(shutil.which(name)) or Path("/usr/sbin", name).exists()


def has_postgres() -> bool:
    # Debian keeps every version in a folder of its own.
    return bool(shutil.which("postgres")) or any(Path("/usr/lib/postgresql").glob("*/bin/postgres"))


# Debian's package: how to find out whether it is needed, and what for.
SYSTEM = {
    "python3-venv": (has_venv, "makes .venv; nothing works without it"),
    "npm": (lambda: shutil.which("npm"), "fetches the JavaScript that the book carries"),
    "chromium": (lambda: shutil.which("chromium"), "opens the built pages in the tests"),
    "gcc-multilib": (has_32bit_compiler, "compiles 32-bit programs in the tests"),
    "fonts-dejavu-core": (has_dejavu, "the letters of the pages in the tests"),
    "dwarves": (lambda: shutil.which("pahole"), "pahole, against which the kernel's own types are checked"),
    "autofs": (lambda: has_server("automount"), "automount, which the tests run against this kernel"),
    "nginx": (lambda: has_server("nginx"), "one end of a connection that the tests move, as are the next two"),
    "redis-server": (lambda: shutil.which("redis-server"), "keeps order while its client moves"),
    "postgresql": (has_postgres, "keeps a transaction open while its client moves"),
    "strace": (lambda: shutil.which("strace"), "tells whether two programs make the same system calls"),
    "git": (lambda: shutil.which("git"), "tells the tests which files are part of the project"),
}
# Of these the services, named as their packages, that Debian would start, now and with the machine.
SERVICES = ("autofs", "nginx", "redis-server", "postgresql")
GOALS = {
    "book": ["python3-venv", "npm"],
    "test": list(SYSTEM),
    "lab": ["python3-venv"],
    "bench": ["python3-venv", "dwarves", "strace"],
}


def missing(goal: str) -> list[str]:
    return [package for package in GOALS[goal] if not SYSTEM[package][0]()]


def tell(packages: list[str]) -> None:
    say("this machine lacks:")
    for package in packages:
        print(f"    {package:<18} {SYSTEM[package][1]}", flush=True)


def install_system(packages: list[str]) -> None:
    """As root on Debian: install; a failure is told and left to the checks that follow."""
    say(f"installing them with {' '.join(APT[:2])}")
    services = [package for package in packages if package in SERVICES]
    quiet = services_stay_down() if services else contextlib.nullcontext()
    with interruptions_wait() as run_whole, quiet:
        for command in (["apt-get", "update", "-q"], [*APT, "-q", *packages]):
            if not run_whole(command):
                say(f"`{' '.join(command)}` failed")
                break
        # Nor at the next start of the machine, even where the installation broke off behind one of them.
        for service in services:
            if Path("/etc/init.d", service).exists():
                subprocess.run(["update-rc.d", service, "disable"], start_new_session=True, check=False)


@contextlib.contextmanager
def interruptions_wait() -> Iterator[Callable[[list[str]], bool]]:
    """Gives a function that runs a program and says whether it succeeded, and none after an interruption.

    Nothing is left half done: SIGINT, SIGTERM and SIGHUP reach the program that runs, as SIGINT (apt-get breaks off a
    download, and finishes what dpkg does), and become a KeyboardInterrupt at the end of all.
    """
    heard: list[int] = []
    running: list[subprocess.Popen[bytes]] = []

    def hear(number: int, _: object) -> None:
        heard.append(number)
        os.write(1, b"setup: interrupted; waiting for what is being installed\n")  # print() may be at work just now
        for program in running:
            program.send_signal(signal.SIGINT)

    def run_whole(command: list[str]) -> bool:
        if heard:
            return False
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        # A session of its own: the terminal's Ctrl-C reaches apt-get by us, and dpkg not at all.
        with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True) as program:
            running.append(program)
            if heard:  # just before it was in the list
                program.send_signal(signal.SIGINT)
            program.wait()
            running.clear()
        return program.returncode == 0

    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield run_whole
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if heard:
        raise KeyboardInterrupt


@contextlib.contextmanager
def services_stay_down() -> Iterator[None]:
    """Debian starts the services that it installs, unless this program says no (invoke-rc.d(8)): the tests start
    them by themselves, with folders of their own.
    """
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists():  # the machine's own rules
        yield
        return
    try:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
        yield
    finally:
        policy.unlink(missing_ok=True)


def how_to_install(packages: list[str]) -> str:
    if shutil.which("apt-get"):
        return f"{'' if os.geteuid() == 0 else 'sudo '}{' '.join(APT)} {' '.join(packages)}"
    return f"your system's package manager; Debian calls them: {' '.join(packages)}"


def prepare_system(goal: str) -> list[str]:
    """Packages that are still missing after all that can be done here."""
    packages = missing(goal)
    if packages:
        tell(packages)
        if os.geteuid() == 0 and shutil.which("apt-get"):
            install_system(packages)
            packages = missing(goal)
    if packages:
        say(f"still missing: {', '.join(packages)}. Install with:")
        print(f"    {how_to_install(packages)}", flush=True)
    return packages


# ---------------------------------------------------------------------------------------- Python packages


def wanted_stamp() -> tuple[str, str]:
    """What .venv must have been made with, and what must have been installed into it."""
    digest = hashlib.sha256()
    for name in DECIDING:
        digest.update(name.encode() + b"\0" + (ROOT / name).read_bytes())
    return f"python {platform.python_version()}\nfolder {ROOT}\n", f"files {digest.hexdigest()}\n"


def prepare_python() -> None:
    made, installed = wanted_stamp()
    found = STAMP.read_text() if STAMP.exists() and PYTHON.exists() else ""
    if found == made + installed:
        return
    start = time.monotonic()
    # Scripts in a .venv name its folder and its Python: for another one of either it is made anew.
    if not found.startswith(made):
        say(f"making .venv with Python {platform.python_version()}")
        run([sys.executable, "-m", "venv", "--clear", str(VENV)], "making .venv failed")
    STAMP.write_text(made)
    pip_install(["-c", "constraints.txt", "-e", EXTRAS])
    STAMP.write_text(made + installed)
    say(f".venv is ready after {time.monotonic() - start:.0f} s")


def pip_install(arguments: list[str]) -> None:
    """`pip install`, telling every ten seconds how far it is; its last words where it fails."""
    say("installing the Python packages of constraints.txt (a few minutes the first time)")
    command = [str(PYTHON), "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--progress-bar=off"]
    lines, collected, told = [], 0, time.monotonic()
    with subprocess.Popen(
        [*command, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as pip:
        for line in pip.stdout:
            lines.append(line)
            collected += line.startswith(("Collecting ", "Processing "))
            if line.startswith("Installing collected packages"):
                say(f"unpacking {line.count(',') + 1} packages")
                told = float("inf")
            elif time.monotonic() - told > 10:
                say(f"{collected} packages looked up")
                told = time.monotonic()
    if pip.returncode:
        print("".join(lines[-15:]), end="")
        stop("pip could not install the packages (its last words are above); run the same command again to resume")


# ---------------------------------------------------------------------------------------- the whole


def vendor(goal: str, lacking: list[str]) -> None:
    """The book's JavaScript, by tools/vendor.py, which does nothing when all is in place."""
    if goal not in ("book", "test"):
        return
    done = subprocess.run([str(PYTHON), "tools/vendor.py"], cwd=ROOT, check=False)
    if done.returncode:
        why = "npm is missing" if "npm" in lacking else "tools/vendor.py failed"
        what = f"{why}: the JavaScript of the book could not be fetched"
        if goal == "book":
            stop(f"{what}, so it cannot be built")
        say(f"{what}; the tests of the built book cannot pass")


def say(text: str) -> None:
    print(f"setup: {text}", flush=True)


def stop(text: str) -> None:
    sys.exit(f"setup: {text}")


def run(command: list[str], complaint: str) -> None:
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        stop(complaint)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("goal", choices=GOALS)
    parser.add_argument("--check", action="store_true", help="only say what this machine lacks")
    options = parser.parse_args()
    if options.check:
        lacking = missing(options.goal)
        if lacking:
            tell(lacking)
            stop(f"install with: {how_to_install(lacking)}")
        return
    lacking = prepare_system(options.goal)
    if "python3-venv" in lacking:
        stop("without python3-venv there is no .venv; nothing was made")
    prepare_python()
    vendor(options.goal, lacking)


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036  the reader's Python, not ours
        sys.exit(f"setup: Python 3.11 or later is needed, this is {platform.python_version()}")
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("setup: interrupted; run the same command again to resume")
