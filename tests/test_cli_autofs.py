"""The commands `kernelnotes autofs decode` and `kernelnotes autofs matrix`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kernelnotes import autofs, recordings

RECORDED = recordings.packets()


def run(*arguments, data=b""):
    command = [Path(sys.executable).with_name("kernelnotes"), "autofs", *arguments]
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.fixture
def stream(tmp_path):
    path = tmp_path / "stream"
    path.write_bytes(RECORDED.stream)
    return path


def test_decode_prints_a_list_with_type_proto_and_every_field(stream):
    status, out, err = run("decode", stream, "--abi", "x86-64", "--json")
    assert (status, err) == (0, "")
    told = json.loads(out)
    assert [row["name"] for row in told] == list(RECORDED.stream_names)
    assert [row["token"] for row in told] == list(RECORDED.stream_tokens)
    assert " ".join(told[0]) == "type proto token dev ino uid gid pid tgid len name"
    assert (told[0]["type"], told[0]["proto"]) == ("missing_indirect", 5)


def test_decode_reads_standard_input_and_prints_text():
    status, out, _ = run("decode", "-", "--abi", "i386", data=RECORDED.stream)
    assert status == 0
    heads = [line for line in out.splitlines() if not line.startswith(" ")]
    assert heads == ["missing_indirect, protocol 5"] + ["unknown, protocol 0"] * 3
    assert "    problem  'protocol 0 has no missing_direct, which is of protocol 5'" in out.splitlines()


@pytest.mark.parametrize(
    ("arguments", "data", "problem"),
    [
        (["-", "--abi", "x86-64"], RECORDED.stream[:500], "-: 196 bytes are left after 1 packets, expected 304"),
        (["-", "--abi", "x86-64"], b"", "-: empty, expected at least one packet"),
        (["-", "--abi", "vax"], RECORDED.stream, "unknown ABI 'vax'"),
        (["/nowhere/at/all", "--abi", "i386"], b"", "/nowhere/at/all: No such file"),
        (["-"], RECORDED.stream, "Missing option '--abi'"),
    ],
)
def test_decode_of_bad_input_says_so_on_stderr_and_ends_with_status_2(arguments, data, problem):
    status, out, err = run("decode", *arguments, data=data)
    assert (status, out) == (2, "")
    assert problem in err
    assert "Traceback" not in err


def test_matrix_prints_the_outcomes_as_a_table_and_as_json():
    status, out, _ = run("matrix")
    assert status == 0
    narrow = out[out.index("32-on-64") :].splitlines()
    assert narrow[0].split("  ")[0] == "32-on-64"
    assert [line.split("(")[0].split()[-1] for line in narrow[1:7]] == ["garbage", "ok", "ok", "ok", "garbage", "ok"]
    assert narrow[6].count("ok (304/") == 4
    assert out.splitlines()[-1].startswith("model: ")
    told = json.loads(run("matrix", "--json")[1])
    assert told == json.loads(autofs.outcomes().to_json(orient="records"))
