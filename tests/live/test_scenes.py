"""The scenes of the book on the running kernel: as the model, or as the recording, and nothing is left."""

import os
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from test_scenes import EXPERIMENTS

from kernelnotes.autofs import scenes as kept
from kernelnotes.errors import CallFailed, Unavailable
from kernelnotes.live import scenes


@pytest.fixture
def tidy(tmp_path, monkeypatch):
    """What is there before must be there afterwards, and nothing else: mounts, open files, folders, processes.

    Whatever a scene starts inherits our environment, by which it is found.
    """
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("KERNELNOTES_TIDY", str(tmp_path))

    def started():
        for environment in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):  # it has just ended, or is none of ours
                if f"KERNELNOTES_TIDY={tmp_path}\0".encode() in environment.read_bytes():
                    yield environment

    def present():
        mounts = Path("/proc/self/mountinfo").read_text()
        return mounts, list(started()), sorted(os.listdir("/proc/self/fd")), list(tmp_path.iterdir())

    before = present()
    yield
    deadline = time.monotonic() + 2  # a process that was killed takes a moment to go
    while present() != before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert present() == before


@pytest.mark.needs("packet pipes")
def test_real_pipes_give_what_the_model_gives(tidy):
    real, model = scenes.pipe_reads(EXPERIMENTS), kept.pipe_reads(EXPERIMENTS)
    assert real.equals(model)
    assert real.attrs["provenance"].kind == "live"


@pytest.mark.needs("autofs")
def test_this_kernel_loses_step_as_the_recorded_one_did(tidy):
    live, recorded = scenes.lose_step(), kept.recorded_steps()
    for frame in (live, recorded):  # tokens come from a counter of the kernel; not so what is taken for one
        assert pd.to_numeric(frame["token"][:4]).diff()[1:].gt(0).all()
    assert live.drop(columns="token").equals(recorded.drop(columns="token"))
    assert live["token"][4:].equals(recorded["token"][4:])
    assert live.attrs["provenance"].kind == "live"


@pytest.mark.needs("autofs")
def test_the_automounter_is_visited_as_it_was_when_recorded(tidy):
    live, recorded = scenes.visit(), kept.recorded_visit()

    def told(log):  # all but when, and where the kernel's counters stood, which other mounts move on too
        tokens = list(dict.fromkeys(event.token for event in log.events))
        return [replace(event, at=0, pid=bool(event.pid), token=tokens.index(event.token)) for event in log.events]

    assert told(live) == told(recorded)


@pytest.mark.needs("autofs")
def test_the_emptied_mnt_is_seen_by_nobody_but_the_scene(tidy):
    before = sorted(os.listdir("/mnt"))
    assert next(event.name for event in scenes.visit().events) == "/mnt/auto"
    assert sorted(os.listdir("/mnt")) == before


@pytest.mark.parametrize("program", ["/mnt/python/bin/python", "/usr/bin/python"])
def test_mnt_is_left_alone_where_what_runs_lives_below_it(tmp_path, monkeypatch, program):
    mounted = []
    monkeypatch.setattr(scenes.mounts, "mount", lambda *arguments: mounted.append(arguments))
    monkeypatch.setattr(scenes.sys, "executable", program)
    monkeypatch.setattr(scenes, "STAGE", Path("/mnt"))
    covered = program.startswith("/mnt/")
    assert scenes._stage(tmp_path) == (tmp_path if covered else Path("/mnt"))
    assert len(mounted) == (0 if covered else 1)


@pytest.mark.needs("autofs")
@pytest.mark.parametrize("seconds", [0.4, 0.6, 0.8, 1.0])
def test_a_scene_that_takes_too_long_is_ended_with_all_that_waits_in_it(tidy, monkeypatch, seconds):
    monkeypatch.setattr(scenes, "TIMEOUT_S", seconds)
    with pytest.raises(CallFailed, match="lose_step did not end"):
        scenes.lose_step()


def test_a_machine_without_autofs_says_so_and_plays_nothing(tidy, monkeypatch):
    def missing(name):
        raise Unavailable(f"{name}: not here")

    monkeypatch.setattr(scenes.machine, "require", missing)
    for scene in (scenes.visit, scenes.lose_step):
        with pytest.raises(Unavailable, match="autofs: not here"):
            scene()
