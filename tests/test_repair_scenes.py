"""What the scenes of connection repair tell: the recorded ones here, those of this machine in live/test_repair_scenes.

The same facts are asked of both, since the chapters say them whichever it is.
"""

import pytest

from kernelnotes.repair import TcpState, scenes, seen
from kernelnotes.repair.segment import Flags, signed

NAMES = ("life", "entering", "steps", "skipped", "states", "move")


def life(told):
    assert len(told.moments) == 9
    numbers = ("copied_seq", "recv_end", "rcv_nxt", "snd_una", "unsent_seq", "send_end", "write_seq")
    for (_, before), (what, after) in zip(told.moments, told.moments[1:], strict=False):
        moved = {name: signed(getattr(after, name) - getattr(before, name)) for name in numbers}
        assert min(moved.values()) >= 0, what
        assert any(moved.values()), what
    last = told.moments[-1].snapshot
    assert last.state is TcpState.TCP_LAST_ACK
    assert (last.fin_received, last.fin_queued, signed(last.rcv_nxt - last.recv_end)) == (True, True, 1)
    now = told.moments[told.at].snapshot
    assert (len(now.recv_queue), len(now.send_queue)) == (6500, 30_000)
    assert 0 < now.unsent < 30_000


def seen_from_outside(told):
    frame = seen.table(told)
    assert list(frame.index) == list(seen.THINGS)
    assert frame["repair mode"].notna().sum() == len(seen.THINGS) - 1  # the segment size now is its only gap
    only = frame[frame["repair mode"].notna()].drop(columns="repair mode").isna().all(axis=1)
    assert set(only[only].index) == {
        "largest segment size (clamp)", "clock for time stamps", "rcv_nxt, write_seq", "the bytes themselves"
    }  # fmt: skip
    for thing in ("both addresses", "state", "bytes not read"):
        assert frame.loc[thing].dropna().nunique() == 1, thing
    answers = {what: (outside, within) for what, _, outside, within in told.calls}
    assert answers["the send queue"] == ("EPERM", "30,000 bytes")
    assert answers["windows"][0] == "EPERM"
    assert [int(text) for text in answers["largest segment"]] == [1448, 1460]
    assert answers["bytes not read"] == ("6,500", "6,500")


def entering(told):
    for state, with_it, without in told.states:
        assert (with_it, without) == ("EPERM" if state == "TCP_LISTEN" else "yes", "EPERM")
    binds = {what: answers for what, *answers in told.binds}
    assert binds.pop("nothing") == ["yes", "yes"]
    assert binds.pop("another host's address") == ["EADDRNOTAVAIL", "EADDRNOTAVAIL"]
    assert list(binds.values()) == [["EADDRINUSE", "yes"]] * 3


def steps(told):
    off = told.marks[-1].at
    assert [p for p in told.packets if p.at < off] == []
    assert not any(p.segment.flags & (Flags.SYN | Flags.FIN | Flags.RST) for p in told.packets)
    probe, answer = told.packets[:2]
    s = told.snapshot
    assert (probe.sender, probe.segment.length) == (scenes.HERE, 0)
    assert probe.segment.seq == (s.snd_una - 1) % 2**32
    assert (answer.sender, answer.segment.ack, answer.segment.seq) == (scenes.PEER, s.snd_una, s.rcv_nxt)
    assert sum(signed(p.segment.ack - s.send_end) == 0 for p in told.packets if p.sender == scenes.PEER) > 0
    whats = [done.what for done in told.dump]
    assert whats.index("lock: nothing comes in") < whats.index("repair mode on") < whats.index("identity")
    assert told.restore[0].call == "setsockopt(TCP_REPAIR, TCP_REPAIR_ON)"
    calls = [done.call.partition("(")[0] for done in told.restore]
    assert calls.index("bind") < calls.index("connect") < calls.index("send")


VERDICTS = {
    "nothing": "works",
    "the lock": "only what we say arrives",
    "repair mode at the close": "reset",
    "whoever takes packets meanwhile": "reset",
    "the numbers of the queues": "silence",
    "a number, by 1,000": "silence",
    "what was agreed on": "works",
    "the clock of the time stamps, 1,000 s behind": "silence",
    "the clock of the time stamps, an odd number": "works",
    "the windows, and no probe, small numbers": "works",
    "the windows, and no probe, large numbers": "only what the peer says arrives",
}


def skipped(told):
    assert {trial.name: trial.verdict for trial in told.trials} == VERDICTS
    by_name = {trial.name: trial for trial in told.trials}
    for name, trial in by_name.items():
        silent = trial.verdict != "reset"
        assert set(trial.states.values()) == {"TCP_ESTABLISHED" if silent else "TCP_CLOSE"}, name
        assert set(trial.errors.values()) == {"" if silent else "EPIPE"}, name  # what is wrong is not told
    assert by_name["the clock of the time stamps, an odd number"].clock == pytest.approx(1000, rel=0.2)
    assert by_name["nothing"].clock == pytest.approx(1, rel=0.2)


def states(told):
    assert len({one.snapshot.state for one in told.moved}) == 8
    for one in told.moved:
        assert one.after == one.snapshot.state.name
        assert (one.arrived, one.whole, one.resets) == (one.expected, True, 0)


def move(told):
    assert len(told.moves) == 8
    assert (told.whole, told.resets) == (True, 0)
    assert told.macs[0] != told.macs[1]
    whats = [mark.what for mark in told.marks]
    order = ["locked", "dumped", "connected", "address", "lives", "ended"]
    assert [next(word for word in order if word in what) for what in whats] == order
    address = told.marks[3].at
    senders = [p.sender for p in told.packets if p.sender != scenes.PEER]
    assert senders == sorted(senders, key=[scenes.OLD, scenes.NEW].index)  # never both
    first = next(p for p in told.packets if p.sender == scenes.NEW)
    assert first.at > address
    assert first.segment.length == 0
    assert not [p for p in told.packets if p.sender == scenes.OLD and p.at > told.marks[0].at + 0.001]


FACTS = {
    "life": (life, seen_from_outside),
    "entering": (entering,),
    "steps": (steps,),
    "skipped": (skipped,),
    "states": (states,),
    "move": (move,),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_scene_shows_what_the_chapters_say(name):
    told = getattr(scenes, name)()
    assert told.provenance.kind == "recorded"
    for fact in FACTS[name]:
        fact(told)
