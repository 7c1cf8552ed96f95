"""The benchmarks run, at a size at which their ratios mean nothing."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


def test_replay_is_measured_against_libcachesim():
    small = ["--accesses", "20000", "--pages", "2000", "--turns", "1"]
    ran = subprocess.run([sys.executable, BENCHMARKS / "replay.py", *small], capture_output=True, text=True)
    assert ran.returncode in (0, 3), ran.stdout + ran.stderr  # 3: too slow, which a busy machine can be
    rows = re.findall(r"^(.+?) +[\d.]+ ns +[\d.]+ M accesses/s  miss ratio ([\d.]+)$", ran.stdout, re.M)
    assert len(rows) == 2 * (6 + 10 + 2)
    for trace in (rows[:18], rows[18:]):
        miss_ratios = dict(trace)
        for policy in ("lru", "clock", "sieve", "arc", "2q", "s3fifo"):
            peers = {ratio for side, ratio in trace if side.startswith(f"libcachesim {policy}, hashpower")}
            assert peers == {miss_ratios[policy]}
        assert miss_ratios["file to miss ratio"] == miss_ratios["balanced-2012"]
    assert len(re.findall(r"^linux-6.18 to libcachesim lru: [\d.]+x, wanted 4x$", ran.stdout, re.M)) == 2
    assert len(re.findall(r"^miss counts equal: True; wanted ratios missed: ", ran.stdout, re.M)) == 2


@pytest.mark.needs("32-bit programs")
def test_layouts_are_measured_against_pahole_libclang_and_dissect_cstruct():
    small = ["--records", "30", "--abi", "i386", "--headers", "2", "--turns", "1"]
    ran = subprocess.run([sys.executable, BENCHMARKS / "layout.py", *small], capture_output=True, text=True)
    assert ran.returncode in (0, 3), ran.stdout + ran.stderr  # 3: only too slow, which a busy machine can be
    assert re.search(r"^i386 +gcc -m32 +30 records, \d+ members: 0 differ$", ran.stdout, re.M)
    row = (
        r"^  (\S.*?) +[\d.]+ ms a header, +(\d+) told, +(\d+) of (\d+) exact(?:, ([\d.]+) x the time of kernelnotes)?$"
    )
    rows = {side: rest for side, *rest in re.findall(row, ran.stdout, re.M)}
    total = rows["kernelnotes"][2]
    assert int(total) > 100
    for side in ("kernelnotes", "kernelnotes layout FILE", "libclang", "gcc -g, pahole", "pahole alone"):
        assert rows[side][:3] == [total] * 3
    assert 0 < int(rows["dissect.cstruct"][1]) < int(total)  # attributes are not its own
    assert {side for side, (*_, ratio) in rows.items() if ratio} == set(rows) - {
        "kernelnotes",
        "kernelnotes layout FILE",
    }


def test_malformed_input_gives_nothing_but_bad_input_for_two_seconds_each(tmp_path):
    ran = subprocess.run(
        [sys.executable, BENCHMARKS / "fuzz.py", "--seconds", "2", "--keep", tmp_path], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    lines = re.findall(
        r"^(\w+): (?:atheris|mutations), \d+ s, (\d+) inputs, .*, 0 kinds of findings$", ran.stdout, re.M
    )
    assert {target for target, inputs in lines if int(inputs) > 10} == {"parse", "unpack", "btf", "hazards"}


@pytest.mark.needs("kernel types")
@pytest.mark.needs(program="pahole")
def test_btf_is_measured_beside_pahole():
    ran = subprocess.run([sys.executable, BENCHMARKS / "btf.py", "--sample", "3"], capture_output=True, text=True)
    assert ran.returncode in (0, 3), ran.stdout + ran.stderr  # 3: only too slow, which a busy machine can be
    assert re.search(r"^index of .* types, .* names: [\d.]+ s$", ran.stdout, re.M)
    assert re.search(r"^one struct, index included: pahole \d+ ms, ours \d+ ms, ratio [\d.]+$", ran.stdout, re.M)


@pytest.mark.needs("tcp repair", "net admin")
@pytest.mark.needs(program="strace")
def test_a_move_makes_the_same_calls_as_the_c_program_beside_which_it_is_measured():
    small = ["--moves", "50", "--hosts", "4", "--mib", "2"]
    ran = subprocess.run([sys.executable, BENCHMARKS / "repair.py", *small], capture_output=True, text=True)
    assert ran.returncode in (0, 3), ran.stdout + ran.stderr  # 3: only too slow, which a busy machine can be
    counts = dict(re.findall(r"^(empty queues|64 KiB \+ 64 KiB): (\d+) calls, the floor \2: equal$", ran.stdout, re.M))
    assert int(counts["64 KiB + 64 KiB"]) > int(counts["empty queues"]) > 80
    ratios = re.findall(r"^.*: ratio ([\d.]+) of [\d.]+ .*, all bytes right$", ran.stdout, re.M)
    assert [float(ratio) > 0 for ratio in ratios] == [True, True]
    assert re.search(r"^between hosts, with the address: median \d+ us .*, all bytes right$", ran.stdout, re.M)
    copies = re.search(
        r"^4 MiB in two queues: .* hold ([\d.]+) copies; .* restore ([\d.]+) of 3, all bytes", ran.stdout, re.M
    )
    assert 0.9 < float(copies[1]) <= float(copies[2])


def test_curves_are_measured_against_libcachesim_at_each_size():
    small = ["--accesses", "20000", "--pages", "2000", "--turns", "1"]
    ran = subprocess.run([sys.executable, BENCHMARKS / "curves.py", *small], capture_output=True, text=True)
    assert ran.returncode in (0, 3), ran.stdout + ran.stderr  # 3: only too slow
    assert len(re.findall(r"^  20 runs of libcachesim +[\d.]+ s   miss counts equal: True$", ran.stdout, re.M)) == 2
    assert len(re.findall(r"the curve, exact +[\d.]+ s   ratio [\d.]+ of 80$", ran.stdout, re.M)) == 2


def test_a_trace_made_in_parts_takes_memory_for_its_pages_only():
    small = ["--accesses", "9000000", "--pages", "200000"]
    ran = subprocess.run([sys.executable, BENCHMARKS / "scale.py", *small], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "9,000,000 accesses to 200,000 pages under proposal-2012" in ran.stdout
