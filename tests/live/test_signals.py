"""Who has the signals, and who gets them back."""

import os
import signal

import pytest

from kernelnotes.live import signals
from kernelnotes.live.signals import HELD, Signals


def test_two_that_end_in_the_wrong_order_leave_ctrl_c_to_who_had_it():
    before = [signal.getsignal(signum) for signum in HELD]
    one, two = Signals(), Signals()
    one.__enter__()
    two.__enter__()
    one.__exit__(None, None, None)
    two.__exit__(None, None, None)
    try:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        for signum, handler in zip(HELD, before, strict=True):
            signal.signal(signum, handler)


@pytest.mark.parametrize("signum", HELD)
def test_a_signal_waits_until_it_is_allowed(signum):
    ended = KeyboardInterrupt if signum == signal.SIGINT else SystemExit
    steps = []

    def interrupted():
        with Signals() as signals:
            signal.raise_signal(signum)
            steps.append("made")
            with signals.allowed():
                steps.append("never")

    with pytest.raises(ended):
        interrupted()
    assert steps == ["made"]


@pytest.mark.parametrize("signum", HELD)
def test_a_signal_is_not_lost_where_an_exception_is_under_way(signum):
    ended = KeyboardInterrupt if signum == signal.SIGINT else SystemExit

    def broken():
        with Signals():
            signal.raise_signal(signum)
            _ = 1 / 0

    with pytest.raises(ended) as raised:
        broken()
    assert isinstance(raised.value.__context__, ZeroDivisionError)


def test_the_first_signal_is_raised_once_and_those_after_it_do_not_stop_the_clean_up():
    cleaned = []

    def interrupted():
        with Signals() as signals:
            try:
                with signals.allowed():
                    signal.raise_signal(signal.SIGTERM)
            finally:
                signal.raise_signal(signal.SIGINT)
                cleaned.append(True)

    with pytest.raises(SystemExit, match="143") as raised:
        interrupted()
    assert cleaned
    assert raised.value.__context__ is None


def test_those_taken_over_already_are_given_back_where_one_comes_before_it_is_taken_over(monkeypatch):
    class Told(BaseException):
        pass

    before, taken = [signal.getsignal(signum) for signum in HELD], []
    real = signals._signal.signal

    def interrupted(signum, handler):
        if signum == HELD[-1] and not taken:
            taken.append(signum)
            raise Told
        return real(signum, handler)

    monkeypatch.setattr(signals._signal, "signal", interrupted)
    with pytest.raises(Told), Signals():
        pass
    assert [signal.getsignal(signum) for signum in HELD] == before


class Block:
    """Its end is announced, as an automounter's is; a signal comes in it, or when it is all but over."""

    def __init__(self, late=False):
        self.late, self.done = late, []

    def __enter__(self):
        self.signals = Signals(self.__exit__).__enter__()
        self.allowed = self.signals.allowed()
        self.allowed.__enter__()
        return self

    def __exit__(self, *error):
        if not self.late:
            signal.raise_signal(signal.SIGTERM)
        self.done.append("cleaned")
        self.allowed.__exit__(None, None, None)
        self.signals.__exit__(*error)
        if self.late:
            signal.raise_signal(signal.SIGTERM)
            self.done.append("waited")


def test_a_signal_waits_from_the_first_instruction_of_the_end_on():
    block = Block()
    with pytest.raises(SystemExit), block:
        pass
    assert block.done == ["cleaned"]


def test_a_signal_does_not_wait_for_the_end_of_the_block_around():
    inner = Block(late=True)
    with pytest.raises(SystemExit), Block(), inner:
        pass
    assert inner.done == ["cleaned"]
