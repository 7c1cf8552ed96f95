"""Who has the signals, and who gets them back."""

import os
import signal

import pytest

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
