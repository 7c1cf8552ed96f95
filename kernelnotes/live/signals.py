"""Ctrl-C, SIGTERM and SIGHUP that wait until what is being made or removed in the kernel is whole."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

HELD = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Signals:
    """Holds Ctrl-C, SIGTERM and SIGHUP back; in `with signals.allowed():` they raise KeyboardInterrupt or SystemExit.

    One that came earlier is raised there, or at the end unless an exception is under way already.  The first one is
    enough: a second Ctrl-C does not stop the clean-up.  Only the main thread gets signals; elsewhere this does nothing.
    Several at a time may end in any order: what reaches one that has ended it hands on to who was there before.
    """

    def __init__(self) -> None:
        self._allowed, self._pending, self._ended, self._before = False, 0, False, dict[int, Any]()

    def __enter__(self) -> Signals:
        """Take the signals over."""
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._arrived) for s in HELD}
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Give them back to who had them before."""
        self._ended = True
        for signum in self._before:
            if signal.getsignal(signum) == self._arrived:  # else somebody else has it, and will give it back to us
                signal.signal(signum, self._previous(signum))
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

    def _previous(self, signum: int) -> Any:
        handler = self._before[signum]
        return signal.SIG_DFL if handler is None else handler  # None: a handler that is not Python's

    def _arrived(self, signum: int, frame: FrameType | None) -> None:
        if self._ended:
            handler = self._previous(signum)
            if callable(handler):
                handler(signum, frame)
            else:
                signal.signal(signum, handler)
                signal.raise_signal(signum)
            return
        self._pending = signum
        if self._allowed:
            self._allowed = False
            self._end_if_pending()

    def _end_if_pending(self) -> None:
        if self._pending:
            raise KeyboardInterrupt if self._pending == signal.SIGINT else SystemExit(128 + self._pending)
