"""The `kernelnotes` command: what it prints where, and with which exit status it ends."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import kernelnotes
from kernelnotes import cli, errors
from kernelnotes.live import machine

SOME = [
    machine.Ability("namespaces", True, detail="user + network namespace made"),
    machine.Ability("32-bit programs", False, reason="there is no gcc " + "at all " * 20, remedy="apt-get install it"),
]


def run(*arguments):
    return CliRunner().invoke(cli.main, arguments)


def installed(*arguments):
    """The command as a shell would run it, its output piped."""
    command = [Path(sys.executable).with_name("kernelnotes"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_version():
    assert installed("--version").stdout == f"kernelnotes {kernelnotes.__version__}\n"


def test_doctor_piped_is_a_table_of_at_most_100_columns_with_a_row_for_each_ability():
    done = installed("doctor")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    assert [line[:16].rstrip() for line in lines[2:] if not line.startswith(" ")] == list(machine.NAMES)


def test_doctor_gives_reason_and_remedy_of_what_is_missing_below_each_other(monkeypatch):
    monkeypatch.setattr(machine, "examine", lambda: SOME)
    monkeypatch.setenv("COLUMNS", "80")
    _, _, first, *rest = run("doctor").stdout.splitlines()
    assert first == "namespaces       yes user + network namespace made"
    assert rest[0].startswith("32-bit programs  no  there is no gcc at all")
    assert rest[-1] == " " * 21 + "remedy: apt-get install it"
    assert all(line.startswith(" " * 21) and len(line) <= 80 for line in rest[1:])


def test_doctor_as_json_carries_the_same_answers(monkeypatch):
    monkeypatch.setattr(machine, "examine", lambda: SOME)
    assert [machine.Ability(**a) for a in json.loads(run("doctor", "--json").stdout)] == SOME


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.BadInput("trace: empty, expected at least one access"), 2),
        (errors.Unavailable("autofs: the kernel has no autofs. Remedy: modprobe autofs4"), 1),
        (errors.CallFailed(32, "connect without a SYN: Broken pipe"), 1),
    ],
)
def test_an_error_of_ours_is_one_line_on_stderr_and_a_status(monkeypatch, error, status):
    def examine():
        raise error

    monkeypatch.setattr(machine, "examine", examine)
    done = run("doctor")
    assert (done.exit_code, done.stdout, done.stderr) == (status, "", f"kernelnotes: {error}\n")


@pytest.mark.parametrize("arguments", [["bogus"], ["doctor", "--bogus"], ["doctor", "bogus"], []])
def test_bad_usage_ends_with_status_2_and_prints_nothing_on_stdout(arguments):
    done = installed(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage: kernelnotes" in done.stderr


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(machine, "examine", lambda: 1 / 0)
    assert isinstance(run("doctor").exception, ZeroDivisionError)


def test_errors_are_handled_in_a_group_below_too():
    outer, inner = cli.group(), cli.group()

    @inner.command()
    def replay():
        raise errors.BadInput("memory is 0, expected at least 1 page")

    @inner.command()
    def other():
        pass

    outer.add_typer(inner, name="refault")
    done = CliRunner().invoke(outer, ["refault", "replay"])
    assert (done.exit_code, done.stderr) == (2, "kernelnotes: memory is 0, expected at least 1 page\n")


def test_layout_prints_a_record_on_each_abi(tmp_path):
    file = tmp_path / "a.h"
    file.write_text("struct s { __u32 a; __u64 b; int c:3; };\nstruct t { int x; };\n")
    done = installed("layout", file, "--struct", "s", "--abi", "i386", "--abi", "s390x", "--json")
    i386, s390x = json.loads(done.stdout)
    assert (i386["record"], i386["abi"], i386["size"], i386["align"]) == ("struct s", "i386", 16, 4)
    place = {"name": "c", "offset": 16, "size": 4, "bit_offset": 128, "bit_width": 3}
    assert (s390x["size"], s390x["members"][2]) == (24, place)
    assert "size: 24, align: 8" in installed("layout", file, "--struct", "s").stdout


@pytest.mark.needs("32-bit programs")
@pytest.mark.parametrize("options", [["--cpp", "gcc"], ["-I", "/usr/include", "-I", "/usr/include/x86_64-linux-gnu"]])
def test_layout_reads_real_includes_as_each_abi_sees_them(tmp_path, options):
    file = tmp_path / "a.h"
    file.write_text("#include <asm/posix_types.h>\nstruct s { __kernel_size_t a; __kernel_old_uid_t b; };\n")
    done = installed("layout", file, "--struct", "s", "--abi", "i386", "--abi", "x86-64", *options, "--json")
    assert [one["size"] for one in json.loads(done.stdout)] == [8, 16], done.stderr


@pytest.mark.parametrize(
    ("text", "options", "problem"),
    [
        ("struct s {", [], ":1:1: '{' is never closed"),
        ("struct s { int x; };", ["--abi", "vax"], "unknown ABI 'vax'"),
        ("struct s { int x; };", ["--struct", "t"], "no record 't', but struct s"),
        (None, [], "No such file"),
    ],
)
def test_layout_refuses_bad_input_with_status_2(tmp_path, text, options, problem):
    file = tmp_path / "a.h"
    if text is not None:
        file.write_text(text)
    done = installed("layout", file, *options)
    assert done.returncode == 2
    assert problem in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.needs("32-bit programs")
def test_hazards_finds_the_packet_in_the_kernels_own_header():
    done = installed("hazards", "/usr/include/linux/auto_fs.h", "--cpp", "gcc", "--json")
    rows = {row["record"]: row for row in json.loads(done.stdout)}
    packet = rows["struct autofs_v5_packet"]
    assert (packet["kind"], packet["sizes"]) == ("tail padding", [300, 304])
    assert packet["header"].startswith("/usr/include/linux/auto_fs.h:")
    assert packet["mend"] == "add `__u8 pad[4];` at the end"
    assert rows["union autofs_v5_packet_union"]["kind"] == "nested record"


def test_hazards_of_a_folder_names_what_it_cannot_read_and_goes_on(tmp_path):
    (tmp_path / "bad.h").write_text("struct s {")
    (tmp_path / "good.h").write_text("struct t { __u32 a; __u64 b; };")
    done = installed("hazards", tmp_path)
    assert done.returncode == 0
    assert "struct t" in done.stdout
    assert "interior shift" in done.stdout
    assert "bad.h:1:1: '{' is never closed" in done.stderr
    assert installed("hazards", tmp_path / "bad.h").returncode == 2
    assert installed("hazards", tmp_path, "--abi", "x32").returncode == 2


def test_a_quiz_asks_and_its_last_line_is_the_command_that_answers():
    asked = installed("quiz", "repair", "--kind", "earlier")  # any seed
    assert "Which one is earlier" in asked.stdout
    assert "Answer:" not in asked.stdout
    command = asked.stdout.splitlines()[-1].removeprefix("The answer: kernelnotes ").split()
    answered = installed(*command)
    assert answered.stdout.splitlines()[:3] == asked.stdout.splitlines()[:3]
    assert "Answer: " in answered.stdout


def test_a_sheet_goes_to_a_file_or_to_standard_output(tmp_path):
    printed = installed("quiz", "layout", "--seed", "3", "--sheet", "5", "--solve")
    assert printed.stdout.count("\n## ") == 10
    installed("quiz", "layout", "--seed", "3", "--sheet", "5", "--solve", "-o", tmp_path / "sheet.md")
    assert (tmp_path / "sheet.md").read_text() == printed.stdout
    installed("quiz", "layout", "--seed", "3", "--sheet", "5", "--format", "html", "-o", tmp_path / "sheet.html")
    assert "<h1" in (tmp_path / "sheet.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["ipc"], "topic is 'ipc'"),
        (["repair", "--seed", "-1"], "seed is -1"),
        (["repair", "--kind", "hard"], "kind is 'hard'"),
        (["repair", "--sheet", "0"], "sheet is 0"),
        (["repair", "--sheet", "2", "--kind", "order"], "--kind is for one problem"),
        (["repair", "--sheet", "2", "--format", "doc"], "format is 'doc', expected one of md, html, pdf"),
        (["repair", "-o", "x"], "--output and --format are for a sheet"),
        (["repair", "--sheet", "2", "-o", "/no/folder/x"], "/no/folder/x: No such file"),
    ],
)
def test_a_quiz_refuses_bad_input_with_status_2(arguments, problem):
    done = installed("quiz", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert problem in done.stderr
