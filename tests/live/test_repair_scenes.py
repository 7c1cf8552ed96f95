"""The scenes of connection repair on the running kernel tell what the recorded ones told, and leave nothing."""

from pathlib import Path

import pytest
from test_repair_scenes import FACTS, NAMES

from kernelnotes.errors import CallFailed
from kernelnotes.live import repair_scenes as live
from tests.live.descriptors import descriptors, present

pytestmark = pytest.mark.needs("tcp repair")


def children():
    """Processes that this one started and that are still there."""
    found = []
    for path in Path("/proc/self/task").glob("*/children"):
        found += path.read_text().split()
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_scene_on_this_kernel_shows_what_the_chapters_say(name):
    before = descriptors(), children()
    told = getattr(live, name)()
    assert (present(), children()) == before
    assert told.provenance.kind == "live"
    for fact in FACTS[name]:
        fact(told)


def test_a_scene_that_takes_too_long_is_ended(monkeypatch):
    before = children()
    with pytest.raises(CallFailed, match=r"did not end within 0\.5 s"):
        live.played("skipped", more_s=0.5 - live.TIMEOUT_S)
    assert children() == before


def test_a_scene_that_breaks_off_says_why():
    with pytest.raises(CallFailed, match="the scene move broke off: ValueError: invalid literal"):
        live.played("move", "many")


def test_progress_is_told_while_it_plays():
    said = []
    live.played("move", "2", progress=said.append)
    assert [text.split(",")[0] for text in said] == ["move 1 of 2", "move 2 of 2"]
