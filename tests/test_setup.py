"""tools/setup.py on a machine that lacks things, and on one that is ready: no package is installed here."""

import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ORDINARY_USER = ["unshare", "--user"] if os.geteuid() == 0 else []
ROOT_USER = [] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user"]
PIP = "-m pip install --no-input --disable-pip-version-check --progress-bar=off "
PIP += "-c constraints.txt -e .[book,live,dask,dev]"

pytestmark = pytest.mark.needs("namespaces")


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def clone(tmp_path):
    """A copy of what set-up reads, with a PATH on which no program is."""
    folder = tmp_path / "clone"
    for name in ("pyproject.toml", "constraints.txt", "requirements.txt", "tools/setup.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (tmp_path / "bin").mkdir()
    return folder


def setup(clone, *arguments, user=ORDINARY_USER, **environment):
    """Run set-up to its end."""
    environment = {"PATH": str(clone.parent / "bin"), "HOME": str(clone.parent)} | environment
    prefix = [shutil.which(user[0]), *user[1:]] if user else []
    command = [*prefix, sys.executable, "tools/setup.py", *arguments]
    return subprocess.run(
        command, cwd=clone, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )


def listed(output):
    """The packages that a run says the machine lacks."""
    return re.findall(r"^    ([\w.-]+) {2,}\S", output, re.M)


def without_ensurepip(folder):
    """What Debian's python3 is without python3-venv."""
    (folder / "ensurepip.py").write_text("raise ImportError('no ensurepip')")
    return str(folder)


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if "__pycache__" not in p.parts)


def has_postgres():
    return any(Path("/usr/lib/postgresql").glob("*/bin/postgres"))


def has_dejavu():
    return any(Path("/usr/share/fonts").rglob("DejaVuSans.ttf"))


# ------------------------------------------------------------------------------------- a machine that lacks things


def test_an_ordinary_user_is_told_every_missing_package_and_the_command(clone):
    script(clone.parent / "bin/apt-get", "echo apt-get was run; exit 1")
    done = setup(clone, "--check", "test")
    lacks = ["npm", "chromium", "gcc-multilib", *([] if has_dejavu() else ["fonts-dejavu-core"]), "dwarves"]
    lacks += [*([] if Path("/usr/sbin/automount").exists() else ["autofs"])]
    lacks += [*([] if Path("/usr/sbin/nginx").exists() else ["nginx"]), "redis-server"]
    lacks += [*([] if has_postgres() else ["postgresql"]), "strace", "git"]
    assert listed(done.stdout) == lacks
    assert f"sudo apt-get install -y --no-install-recommends {' '.join(lacks)}\n" in done.stdout
    assert "apt-get was run" not in done.stdout
    assert done.returncode == 1


def test_elsewhere_than_on_debian_the_packages_are_named_without_a_command(clone):
    assert "package manager; Debian calls them: npm\n" in setup(clone, "--check", "book").stdout


def test_a_package_is_not_missing_where_its_program_is(clone):
    script(clone.parent / "bin/npm", "exit 0")
    done = setup(clone, "--check", "book")
    assert (done.returncode, done.stdout) == (0, "")


def test_the_programs_that_tests_need_are_of_packages_that_the_setup_knows():
    needed = set(runpy.run_path(str(ROOT / "tests/conftest.py"))["PROGRAMS"].values())
    code = "import json, setup; print(json.dumps([setup.GOALS['test'], list(setup.SYSTEM)]))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT / "tools")}, capture_output=True, check=True
    )
    for packages in json.loads(done.stdout):
        assert needed <= set(packages)


def test_without_venv_support_nothing_is_made(clone):
    before = files(clone)
    done = setup(clone, "book", PYTHONPATH=without_ensurepip(clone.parent))
    assert listed(done.stdout) == ["python3-venv", "npm"]
    assert done.returncode == 1
    assert "without python3-venv there is no .venv; nothing was made" in done.stdout
    assert files(clone) == before


def test_root_on_debian_sees_the_list_before_the_packages_are_installed(clone):
    script(clone.parent / "bin/apt-get", 'echo "apt-get $DEBIAN_FRONTEND $@"')
    done = setup(clone, "book", user=ROOT_USER, PYTHONPATH=without_ensurepip(clone.parent))
    assert listed(done.stdout) == ["python3-venv", "npm"]
    told = [line for line in done.stdout.splitlines() if line.startswith("apt-get") or "this machine lacks" in line]
    assert told == [
        "setup: this machine lacks:",
        "apt-get noninteractive update -q",
        "apt-get noninteractive install -y --no-install-recommends -q python3-venv npm",
    ]
    assert "still missing: python3-venv, npm" in done.stdout  # this apt-get installs nothing


# ------------------------------------------------------------------------------------- a .venv, new and old


@pytest.fixture
def ready(clone):
    """A clone whose set-up is complete; its Python only writes down what it was asked, and does as PIP says."""
    script(clone / ".venv/bin/python", f'echo "$@" >> {clone.parent}/asked\ncase "$2" in pip) eval "$PIP";; esac')
    code = "import setup; setup.STAMP.write_text(''.join(setup.wanted_stamp()))"
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(clone / "tools")}, check=True)
    script(clone.parent / "bin/npm", "exit 0")
    return clone


def asked(clone):
    return (clone.parent / "asked").read_text().splitlines()


def test_a_second_run_is_quick_and_installs_nothing(ready):
    start = time.monotonic()
    done = setup(ready, "book")
    assert time.monotonic() - start < 1
    assert (done.returncode, done.stdout) == (0, "")
    assert asked(ready) == ["tools/vendor.py"]


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt", "requirements.txt", "tools/setup.py"])
def test_a_changed_file_installs_again_once(ready, name):
    with (ready / name).open("a") as file:
        file.write("\n# changed\n")
    setup(ready, "book")
    setup(ready, "book")
    assert asked(ready) == [PIP, "tools/vendor.py", "tools/vendor.py"]


def test_a_failed_installation_shows_why_and_is_not_taken_for_a_complete_one(ready):
    (ready / "constraints.txt").write_text("numpy==0\n")
    done = setup(ready, "book", PIP="echo ERROR: no numpy==0; exit 1")
    assert done.returncode == 1
    assert "ERROR: no numpy==0\nsetup: pip could not install the packages" in done.stdout
    (ready.parent / "asked").unlink()
    setup(ready, "book", PIP="exit 1")
    assert asked(ready) == [PIP]


def test_an_interrupted_installation_is_not_taken_for_a_complete_one(ready):
    (ready / "constraints.txt").write_text("numpy==0\n")
    environment = {"PATH": f"{ready.parent}/bin:/usr/bin:/bin", "PIP": "sleep 60"}
    with subprocess.Popen(
        [sys.executable, "tools/setup.py", "book"],
        cwd=ready,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as running:
        while "installing the Python packages" not in running.stdout.readline():
            assert running.poll() is None
        os.killpg(running.pid, signal.SIGINT)
        assert "interrupted; run the same command again to resume" in running.stdout.read()
    assert running.returncode == 1
    (ready.parent / "asked").unlink(missing_ok=True)
    setup(ready, "book")
    assert asked(ready) == [PIP, "tools/vendor.py"]


@pytest.mark.parametrize(("goal", "status"), [("book", 1), ("test", 0)])
def test_without_npm_the_book_stops_and_the_tests_go_on(ready, goal, status):
    (ready.parent / "bin/npm").unlink()
    script(ready / ".venv/bin/python", "exit 1")
    done = setup(ready, goal)
    assert done.returncode == status
    assert "npm is missing: the JavaScript of the book could not be fetched" in done.stdout


# ------------------------------------------------------------------------------------- services stay down

# A machine of our own: root in it, with an empty /usr/sbin and /etc/init.d that only it sees.
in_namespaces = pytest.mark.needs("namespaces")
INSIDE = 'mount --bind "$0/sbin" /usr/sbin && mount --bind "$0/init.d" /etc/init.d && PATH="$0/bin" exec "$@"'
POLICY = "[ -e /usr/sbin/policy-rc.d ] && up=no || up=yes"


@pytest.fixture
def machine(ready):
    """A machine without programs for root, whose apt-get does as I say; what it did is in the lines of `did`."""
    folder = ready.parent
    for name in ("sbin", "init.d"):
        (folder / name).mkdir()
    (folder / "did").touch()
    script(folder / "bin/update-rc.d", f'echo "$@" >> {folder}/did')

    def install(apt_get):
        script(folder / "bin/apt-get", f"{POLICY}\necho $1, services up: $up >> {folder}/did\n{apt_get}")
        own = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", INSIDE, str(folder)]
        return subprocess.Popen(
            [*own, sys.executable, "tools/setup.py", "test"],
            cwd=ready,
            env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    return install


INSTALLS = "case $1 in install) cd /usr/sbin; : > automount; : > nginx; /bin/chmod +x automount nginx; "
INSTALLS += "cd /etc/init.d; : > autofs; : > nginx;; esac"
WHOLE = ["update, services up: no", "install, services up: no", "autofs disable", "nginx disable"]


def did(clone):
    return (clone.parent / "did").read_text().splitlines()


@in_namespaces
def test_services_are_installed_without_being_started_now_or_later(ready, machine):
    with machine(INSTALLS) as running:
        told = running.stdout.read()
    assert running.returncode == 0, told
    assert did(ready) == WHOLE
    assert files(ready.parent / "sbin") == ["automount", "nginx"]


@in_namespaces
def test_an_installation_that_fails_leaves_services_as_they_were(ready, machine):
    with machine("exit 100") as running:
        assert "`apt-get update -q` failed" in running.stdout.read()
    assert did(ready) == WHOLE[:1]
    assert files(ready.parent / "sbin") == []


@in_namespaces
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_waits_for_the_packages_and_leaves_services_down(ready, machine, number):
    # As apt-get does while dpkg is at work, this one goes on in spite of SIGINT.
    slow = "case $1 in install) trap 'echo heard' INT; echo at work; /bin/sleep 0.5; /bin/sleep 0.5;; esac"
    with machine(f"{slow}\n{INSTALLS}") as running:
        while "at work" not in running.stdout.readline():
            assert running.poll() is None
        os.killpg(running.pid, number)
        told = running.stdout.read()
    assert "heard" in told
    assert "setup: interrupted; run the same command again to resume" in told
    assert running.returncode == 1
    assert did(ready) == WHOLE
    assert files(ready.parent / "sbin") == ["automount", "nginx"]


@in_namespaces
def test_a_download_is_broken_off_and_nothing_follows_it(ready, machine):
    with machine("echo at work; exec /bin/sleep 60") as running:
        while "at work" not in running.stdout.readline():
            assert running.poll() is None
        running.send_signal(signal.SIGTERM)
        assert "interrupted; run the same command again" in running.stdout.read()
    assert did(ready) == WHOLE[:1]
    assert files(ready.parent / "sbin") == []


@in_namespaces
def test_the_machines_own_policy_is_left_as_it_is(ready, machine):
    script(ready.parent / "sbin/policy-rc.d", "exit 104")
    with machine(INSTALLS) as running:
        told = running.stdout.read()
    assert running.returncode == 0, told
    assert did(ready) == WHOLE
    assert (ready.parent / "sbin/policy-rc.d").read_text() == "#!/bin/sh\nexit 104\n"
