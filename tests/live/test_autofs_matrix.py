"""The whole matrix with real 32-bit and 64-bit readers at real pipes: what the model computes is what they do."""

import os
from contextlib import suppress

import pytest

from kernelnotes import autofs
from kernelnotes.errors import CallFailed, Unavailable
from kernelnotes.live import machine, readers
from kernelnotes.live.origin import kernel
from tests.live.descriptors import descriptors, present

pytestmark = pytest.mark.needs("32-bit programs", "packet pipes")


@pytest.fixture(scope="module")
def built():
    with readers.programs() as made:
        yield made


@pytest.mark.parametrize(
    ("abi", "options", "bits", "size", "named"),
    [("i386", [], 32, 300, "x86_64"), ("i386", ["32"], 32, 300, "i686"), ("x86-64", [], 64, 304, "x86_64")],
)
def test_a_reader_is_what_it_is_taken_for(built, abi, options, bits, size, named):
    with readers.Program(built[abi], "systemd", True, options) as program:
        hello = program.hello()
    assert (hello.bits, hello.sizeof, hello.wants, hello.machine) == (bits, size, size, named)
    assert hello.release == os.uname().release
    assert hello.sizeof == autofs.PACKETS["missing_direct"].size(abi)


@pytest.mark.parametrize(("options", "wants"), [([], 300), (["2.6"], 304), (["32", "2.6"], 300)])
def test_a_32_bit_automount_wants_what_it_guesses_from_uname(built, options, wants):
    with readers.Program(built["i386"], "automount 5.0.7", False, options) as program:
        hello = program.hello()
    assert hello.wants == wants
    assert hello.release.startswith("2.6.") == ("2.6" in options)


@pytest.mark.parametrize("schedule", autofs.SCHEDULES)
@pytest.mark.parametrize("kernel", autofs.KERNELS.values(), ids=lambda kernel: kernel.name)
def test_real_readers_do_event_by_event_what_the_model_says(built, kernel, schedule):
    for reader in autofs.READERS.values():
        for mode in autofs.MODES.values():
            real, model = (
                readers.play(built, kernel, reader, mode, schedule),
                autofs.play(kernel, reader, mode, schedule),
            )
            assert real.as_dict() == model.as_dict()
            assert (real.provenance.kind, model.provenance.kind) == ("live", "model")


def test_the_table_of_real_outcomes_is_the_table_of_the_model():
    real = readers.outcomes()
    assert len(real) == 144
    assert (real == autofs.outcomes()).all(axis=None)
    assert str(real.attrs["provenance"]).startswith(f"live: {kernel()}, ")
    assert "is a model" in real.attrs["provenance"].command


def test_a_reader_leaves_neither_process_nor_pipe_behind(built):
    before = descriptors()
    program = readers.Program(built["i386"], "systemd", True)
    with suppress(KeyboardInterrupt), program:
        raise KeyboardInterrupt
    assert program._process.poll() is not None
    assert present() == before


def test_an_unknown_reader_ends_at_once_and_a_silent_one_after_the_timeout(built, monkeypatch):
    with readers.Program(built["i386"], "nobody", True) as program, pytest.raises(CallFailed, match="ended without"):
        program.hello()
    monkeypatch.setattr(readers, "TIMEOUT_S", 0.1)
    with readers.Program(built["i386"], "systemd", True) as program:
        program.hello()
        with pytest.raises(CallFailed, match=r"no event within 0\.1 s"):
            program.hello()


def test_without_a_compiler_that_can_the_programs_are_unavailable(monkeypatch):
    monkeypatch.setenv("CC", "false")
    monkeypatch.setattr(machine, "examine", lambda names: [machine.Ability(*names, True)])
    with pytest.raises(Unavailable, match="does not compile"), readers.programs():
        pass
