"""All of connection repair as uid 65534, in namespaces of its own: nobody needs to be root for it.

Left out are the real servers, the thirty moves under flood, and of what is tried over IPv4, IPv6 and mapped addresses
all but IPv6: that takes a minute and a half.  With KERNELNOTES_ROOTLESS=all in the environment all of it runs.
"""

import os
import re
import sys

import pytest

from kernelnotes.live import inside
from tests.live.ordinary import as_ordinary_user

FILES = ("test_netlab", "test_repair", "test_handover", "test_moves", "test_faults", "test_cli_repair")
SELECTED = "not AsAnOrdinaryUser and not thirty_moves and not IPv4 and not mapped and not (half_closed and test_faults)"
# What takes more than rights over one's own network, and is skipped with that reason.
NOT_OURS = {"bpf(2) is not permitted. Remedy: run as root"}


@pytest.mark.needs("namespaces", "tcp repair")
def test_connections_are_moved_by_an_ordinary_user(tmp_path):
    everything = os.environ.get("KERNELNOTES_ROOTLESS") == "all"
    chosen = "not AsAnOrdinaryUser" if everything else SELECTED
    files = [f"tests/live/{name}.py" for name in FILES]
    again = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'there'}"]
    done = as_ordinary_user(*inside.own_namespaces([*again, *files, "-k", chosen]), timeout_s=600)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout.splitlines()[-1])
    [passed] = map(int, re.findall(r"(\d+) passed", done.stdout))
    assert passed > (350 if everything else 120)
    assert set(re.findall(r"^SKIPPED \[\d+\] \S+: (.*)$", done.stdout, re.M)) <= NOT_OURS
