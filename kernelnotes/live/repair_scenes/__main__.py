"""One scene, in a process of its own: what it tells goes to stdout as JSON, how far it is to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from kernelnotes.errors import Unavailable
from kernelnotes.live import inside
from kernelnotes.live.repair_scenes import FAILED, looking, moving, restoring
from kernelnotes.live.repair_scenes.stage import connected, dumped, two_hosts


def ready() -> dict[str, Any]:
    """Nothing, where a connection can be made and dumped."""
    with two_hosts() as (here, peer):
        sock, _ = connected(here, peer)
        dumped(sock)
    return {}


SCENES: dict[str, Callable[..., dict[str, Any]]] = {
    "ready": ready,
    "life": looking.life,
    "entering": looking.entering,
    "steps": restoring.steps,
    "skipped": restoring.skipped,
    "states": restoring.states,
    "move": moving.move,
}


def main(scene: str, *arguments: str) -> int:
    """The exit status."""
    try:
        inside.enter_own_namespaces()
        told = SCENES[scene](*arguments)
    except Unavailable as e:
        print(f"{FAILED}{e}", file=sys.stderr)
        return 1
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
