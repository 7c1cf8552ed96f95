"""Steps in words: as a C programmer would write them, with the names of the headers."""

import pytest
from connections import snapshots
from hypothesis import given, settings

from kernelnotes.repair import TcpOption, constants, history, restore_steps, spelling
from kernelnotes.repair import steps as plan
from kernelnotes.repair.steps import Step


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (plan.REPAIR_ON, "setsockopt(TCP_REPAIR, TCP_REPAIR_ON)"),
        (plan.REPAIR_OFF_SILENTLY, "setsockopt(TCP_REPAIR, TCP_REPAIR_OFF_NO_WP)"),
        (plan.SELECT_SEND, "setsockopt(TCP_REPAIR_QUEUE, TCP_SEND_QUEUE)"),
        (plan.LOCK, "setsockopt(SO_ATTACH_FILTER, drop all)"),
        (plan.UNSCALED, "setsockopt(TCP_WINDOW_CLAMP, 65535)"),
        (Step("", "ioctl", (constants.SIOCINQ,)), "ioctl(SIOCINQ)"),
        (Step("", "recv", (100, constants.MSG_PEEK)), "recv(MSG_PEEK)"),
        (Step("", "getsockopt", (constants.IPPROTO_TCP, int(TcpOption.TCP_QUEUE_SEQ))), "getsockopt(TCP_QUEUE_SEQ)"),
        (Step("", "send_all", (bytes(14_480),)), "send(14,480 bytes)"),
        (Step("", "bind", (("192.0.2.1", 80),)), "bind(192.0.2.1:80)"),
    ],
)
def test_a_call_is_told_by_the_names_of_the_headers(step, told):
    assert spelling.call(step) == told


@given(snapshots())
@settings(max_examples=200, deadline=None)
def test_every_step_of_every_restore_can_be_told(s):
    for step in restore_steps(s):
        told = spelling.call(step)
        assert "\n" not in told
        assert " object at " not in told
        assert told.endswith(")") or told.startswith("raw packet: ")


def test_the_history_goes_forward_and_names_its_sources():
    dates = [event.date for event in history.HISTORY]
    assert dates == sorted(dates)
    assert all(event.source for event in history.HISTORY)
