"""The scenes of the book on the running kernel: as the model, or as the recording, and nothing is left."""

import os
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from test_scenes import EXPERIMENTS

from kernelnotes.autofs import scenes as kept
from kernelnotes.errors import CallFailed, Unavailable
from kernelnotes.live import scenes


@pytest.fixture
def tidy(tmp_path, monkeypatch):
    """What is there before must be there afterwards, and nothing else; the scenes' folders are below `tmp_path`."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def present():
        running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        ours = [line for line in running.splitlines() if str(tmp_path) in line]
        mounts = [line.split(" ", 3)[3] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        return mounts, ours, sorted(os.listdir("/proc/self/fd")), list(tmp_path.iterdir())

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
    same = ["pipe", "protocol", "type", "answer", "process"]
    assert live[same].equals(recorded[same])
    assert live.attrs["provenance"].kind == "live"


@pytest.mark.needs("autofs")
def test_the_automounter_is_visited_as_it_was_when_recorded(tidy):
    live, recorded = scenes.visit(), kept.recorded_visit()
    assert [event.what for event in live.events] == [event.what for event in recorded.events]


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
