"""The running kernel's types, by Python and by the command line."""

import json
import os
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from kernelnotes import btf
from kernelnotes.errors import BadInput, Unavailable
from kernelnotes.live import btf as live
from kernelnotes.live import machine
from kernelnotes.live.origin import kernel

VMLINUX = live.FOLDER / "vmlinux"
kernel_types = pytest.mark.needs("kernel types")


def layout(*arguments):
    command = [Path(sys.executable).with_name("kernelnotes"), "layout", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@kernel_types
def test_a_layout_names_the_running_kernel_as_its_origin():
    told = live.types()["list_head"].provenance
    assert (told.kind, told.kernel, told.date) == ("live", kernel(), f"{date.today()}")
    assert told.command == "cat /sys/kernel/btf/vmlinux"


@kernel_types
def test_a_module_that_is_not_loaded_is_unavailable_and_says_how_to_get_it():
    with pytest.raises(Unavailable, match=r"no module no-such is loaded .*no_such is missing.*modprobe no-such"):
        live.types("no-such")
    with pytest.raises(BadInput, match=r"'\.\./x' is no name of a module"):
        live.types("../x")


@kernel_types
def test_the_types_of_a_module_are_read_on_those_of_vmlinux(tmp_path, monkeypatch):
    # No module at hand need be loaded: one without any type of its own stands in for it.
    (tmp_path / "vmlinux").symlink_to(VMLINUX)
    (tmp_path / "empty").write_bytes(VMLINUX.read_bytes()[:8] + bytes(16))
    monkeypatch.setattr(live, "FOLDER", tmp_path)
    types = live.types("empty")
    assert list(types) == []
    assert types["list_head"].size == 16


def test_types_that_cannot_be_read_are_unavailable(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "require", lambda name: None)
    monkeypatch.setattr(live, "FOLDER", tmp_path)
    (tmp_path / "vmlinux").mkdir()
    with pytest.raises(Unavailable, match="vmlinux: Is a directory"):
        live.types()


def test_a_kernel_that_shows_no_types_is_unavailable_with_a_remedy(monkeypatch):
    answer = machine.Ability("kernel types", False, "", "there is no file", "another kernel")
    monkeypatch.setattr(machine, "examine", lambda names: [answer])
    with pytest.raises(Unavailable, match=r"kernel types: there is no file\. Remedy: another kernel"):
        live.types()


@kernel_types
@pytest.mark.needs(program="pahole")
def test_the_command_prints_the_struct_that_pahole_prints():
    theirs = subprocess.run(["pahole", "-C", "list_head", VMLINUX], capture_output=True, text=True, check=True).stdout
    ours = layout("--btf", "list_head").stdout
    assert ours.splitlines()[0] == f"/* {live.types().provenance} */"
    told, printed = ("".join(text.split()) for text in (theirs, ours))
    assert told[: told.index("/*size")] == printed[printed.index("structlist_head{") :][: told.index("/*size")]


@kernel_types
def test_the_command_prints_json_and_other_abis():
    x86_64, i386 = json.loads(layout("--btf", "list_head", "--abi", "x86-64", "--abi", "i386", "--json").stdout)
    assert (x86_64["record"], x86_64["size"], i386["size"]) == ("struct list_head", 16, 8)
    place = {"name": "prev", "offset": 8, "size": 8, "bit_offset": 64, "bit_width": None}
    assert x86_64["members"][1] == place


@kernel_types
def test_types_from_a_file_are_told_from_live_ones(tmp_path):
    shutil.copyfile(VMLINUX, tmp_path / "kernel.btf")
    done = layout("--btf", "list_head", "--btf-file", tmp_path / "kernel.btf")
    assert done.stdout.startswith("/* recorded: a kernel that BTF does not name, ")
    assert done.stdout.splitlines()[1:] == str(btf.read(VMLINUX.read_bytes())["list_head"]).splitlines()


@kernel_types
@pytest.mark.parametrize(
    ("arguments", "status", "problem"),
    [
        (["--btf", "task_strukt"], 2, "'task_strukt'; similar: task_struct"),
        (["--btf", "struct no such thing"], 2, "no struct, union or typedef of one called"),
        (["--btf", "x", "--btf-file", os.devnull], 2, "0 bytes, expected a header of 24"),
        (["--btf", "x", "--btf-file", "/nowhere"], 2, "/nowhere: No such file"),
        (["--btf", "x", "--module", "no_such"], 1, "Remedy: modprobe no_such"),
        (["--btf", "x", "--module", "m", "--btf-file", "f"], 2, "only one of them"),
        (["--btf", "x", "--struct", "x"], 2, "are for a FILE of C source"),
        (["a.h", "--module", "m"], 2, "says where --btf NAME looks"),
        (["a.h", "--btf", "x"], 2, "either a FILE of C source or --btf NAME"),
        ([], 2, "either a FILE of C source or --btf NAME"),
    ],
)
def test_the_command_says_what_is_wrong(arguments, status, problem):
    done = layout(*arguments)
    assert done.returncode == status
    assert problem in done.stderr
    assert "Traceback" not in done.stderr
