"""Scenes with connections of the running kernel, for the book: see `kernelnotes.repair.scenes` for what they tell.

Each plays in a process and in network namespaces of its own, which end with it; where we are not root, in a user
namespace of its own too.  It is killed after `TIMEOUT_S`.  Raises Unavailable where the machine cannot do it.

stage       two hosts, a connection between them, an end that hears nothing
looking     life and entering
restoring   steps, skipped and states
moving      move
__main__    the process in which one of them plays
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from datetime import date
from typing import Any

from kernelnotes.errors import CallFailed, Unavailable
from kernelnotes.provenance import Provenance
from kernelnotes.repair import scenes

TIMEOUT_S = 60.0
FAILED, PROGRESS = "Unavailable: ", "so far: "  # what begins a line of a scene that says so
SCENES = ("life", "entering", "steps", "skipped", "states", "move")


def provenance(what: str) -> Provenance:
    """That it happened here and now."""
    return Provenance("live", f"{os.uname().sysname} {os.uname().release}", what, f"{date.today()}")


def life() -> scenes.Life:
    """A connection from the handshake to its end, dumped after each event."""
    return scenes.made_life(played("life"), provenance("a connection between two namespaces, dumped in repair mode"))


def entering() -> scenes.Entering:
    """Who may enter repair mode, and what can be bound in it."""
    return scenes.made_entering(played("entering"), provenance("setsockopt(TCP_REPAIR) and bind(), tried"))


def steps() -> scenes.Steps:
    """One dump and restore, call by call."""
    return scenes.made_steps(played("steps"), provenance("dump and restore, with a capture at the peer"))


def skipped() -> scenes.Skipped:
    """A dump and restore with a step left out."""
    return scenes.made_skipped(played("skipped"), provenance("dump and restore with a step left out"))


def states() -> scenes.States:
    """A dump and restore in each state."""
    return scenes.made_states(played("states"), provenance("dump and restore in each state"))


def move() -> scenes.Move:
    """A download that moves between two hosts."""
    return made_move(played("move"))


def made_move(told: dict[str, Any]) -> scenes.Move:
    """`Move` from what `played("move")` told."""
    return scenes.made_move(told, provenance("a connection moved between two namespaces"))


def require() -> None:
    """Raises Unavailable where this machine cannot play."""
    played("ready")


def played(scene: str, *arguments: str, progress: Callable[[str], None] | None = None, more_s: float = 0.0) -> Any:
    """What a scene of `SCENES` tells, as JSON has it; meanwhile `progress` is told how far it has got, if it says so.

    It may take `more_s` longer than usual.  Raises Unavailable, and CallFailed where it breaks off.
    """
    command = [sys.executable, "-m", "kernelnotes.live.repair_scenes", scene, *arguments]
    last = ""
    with (
        tempfile.TemporaryFile() as told,
        subprocess.Popen(command, stdout=told, stderr=subprocess.PIPE, text=True, process_group=0) as process,
    ):
        timer = threading.Timer(TIMEOUT_S + more_s, process.kill)
        timer.start()
        try:
            for line in process.stderr or ():
                if not line.startswith(PROGRESS):
                    last = line.strip() or last
                elif progress:
                    progress(line.removeprefix(PROGRESS).rstrip())
            process.wait()
        except BaseException:
            process.kill()
            raise
        finally:
            timer.cancel()
        if process.returncode and FAILED in last:
            raise Unavailable(last.partition(FAILED)[2])
        if process.returncode == -signal.SIGKILL:
            raise CallFailed(errno.ETIMEDOUT, f"the scene {scene} did not end within {TIMEOUT_S + more_s:g} s")
        if process.returncode:
            raise CallFailed(errno.EIO, f"the scene {scene} broke off: {last or f'status {process.returncode}'}")
        told.seek(0)
        return json.load(told)
