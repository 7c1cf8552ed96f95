"""Ctrl-C and SIGTERM that wait until what is being made or removed in the kernel is whole."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any


class Signals:
    """Holds SIGINT and SIGTERM back; inside `with signals.allowed():` they raise KeyboardInterrupt or SystemExit.

    One that came earlier is raised there, or at the end unless an exception is under way already.  The first one is
    enough: a second Ctrl-C does not stop the clean-up.  Only the main thread gets signals; elsewhere this does nothing.
    """

    def __init__(self) -> None:
        self._allowed, self._pending, self._before = False, 0, dict[int, Any]()

    def __enter__(self) -> Signals:
        """Take both signals over."""
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._arrived) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Give them back to who had them before."""
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        if kind is None:
            self._end_if_pending()

    @contextlib.contextmanager
    def allowed(self) -> Iterator[None]:
        """Let them through, at any point of the block."""
        self._allowed = True
        try:
            self._end_if_pending()
            yield
        finally:
            self._allowed = False

    def _arrived(self, signum: int, frame: FrameType | None) -> None:
        self._pending = signum
        if self._allowed:
            self._allowed = False
            self._end_if_pending()

    def _end_if_pending(self) -> None:
        if self._pending:
            raise KeyboardInterrupt if self._pending == signal.SIGINT else SystemExit(128 + self._pending)
