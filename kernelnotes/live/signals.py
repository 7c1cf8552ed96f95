"""Ctrl-C, SIGTERM and SIGHUP that wait until what is being made or removed in the kernel is whole."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal's functions without its enumerations: a tenth of the time
import signal
import threading
from collections.abc import Callable
from types import FrameType, MethodType
from typing import Any

HELD = [int(getattr(signal, name)) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Signals:
    """Holds Ctrl-C, SIGTERM and SIGHUP back; in `with signals.allowed():` they raise KeyboardInterrupt or SystemExit.

    One that came earlier is raised there, or at the end, also in place of an exception that is under way, which it then
    names as its context.  The first one is enough: a second Ctrl-C does not stop the clean-up.  Only the main thread
    gets signals; elsewhere this does nothing.  Several at a time may end in any order: what reaches one that has ended
    it hands on to who was there before.

    Python may run a signal's handler at the first instruction of an __exit__, and an exception there would leave out
    all that it does.  A class whose __exit__ ends the block gives it here, `Signals(self.__exit__)`: signals wait from
    that instruction on.
    """

    def __init__(self, ending: Callable[..., Any] | None = None) -> None:
        self._ending = (ending.__func__.__code__, ending.__self__) if isinstance(ending, MethodType) else None
        self._allowed, self._pending, self._raised, self._ended = False, 0, False, False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        """Take the signals over."""
        if threading.current_thread() is threading.main_thread():
            try:
                for signum in HELD:
                    self._before[signum] = _signal.getsignal(signum)
                    _signal.signal(signum, self._arrived)
            except BaseException:  # one of them came while it was not taken over yet
                self._give_back()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        """Give them back to who had them before."""
        self._give_back()
        self.end_if_pending()

    def _give_back(self) -> None:
        self._ended = True
        for signum in self._before:
            if _signal.getsignal(signum) == self._arrived:  # else somebody else has it, and will give it back to us
                _signal.signal(signum, self._previous(signum))

    def allowed(self) -> _Allowed:
        """Let them through, at any point of the block."""
        return _Allowed(self)

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
        self._pending = self._pending or signum
        if self._allowed and not self._is_ending(frame):
            self._allowed = False
            self.end_if_pending()

    def _is_ending(self, frame: FrameType | None) -> bool:
        # Was it the method `ending`, or what that calls, that the signal interrupted?
        while frame and self._ending:
            code, owner = self._ending
            if frame.f_code is code and frame.f_locals.get("self") is owner:
                return True
            frame = frame.f_back
        return False

    def end_if_pending(self) -> None:
        """Raise what came until now: for a place in the middle, where nothing is half done."""
        if self._pending and not self._raised:
            self._raised = True
            raise KeyboardInterrupt if self._pending == signal.SIGINT else SystemExit(128 + self._pending)


class _Allowed:
    # As a class: a generator would take three times as long.
    __slots__ = ("_signals",)

    def __init__(self, signals: Signals) -> None:
        self._signals = signals

    def __enter__(self) -> None:
        self._signals._allowed = True
        try:
            self._signals.end_if_pending()
        except BaseException:
            self._signals._allowed = False
            raise

    def __exit__(self, *_: object) -> None:
        self._signals._allowed = False
