"""Self-checks: right answers pass, wrong ones are told where they are wrong."""

import re

import pytest

from kernelnotes import check, refault, traces
from kernelnotes.autofs import READERS, Reader
from kernelnotes.repair import restore_steps, session, spelling

PACKET = "struct s { char a; __u64 b; int c; };"
RIGHT = {"a": 0, "b": 4, "c": 12, "size": 16, "align": 4}


def test_a_verdict_is_true_if_right_and_insists_otherwise():
    assert check.Verdict(True, "so it is.")
    assert str(check.Verdict(False, "look again.")) == "Not yet: look again."
    check.Verdict(True, "fine.").insist()
    with pytest.raises(AssertionError, match=r"look again\."):
        check.Verdict(False, "look again.").insist()


def right_distances(pages, memory):
    return refault.replay(pages, memory, "fifo").distances.tolist()


def test_refault_distances_are_compared_access_by_access():
    assert check.refault_test(right_distances)
    assert "8 accesses, but 7 answers" in check.refault_test(lambda p, m: right_distances(p, m)[1:]).message
    never = check.refault_test(lambda p, m: [refault.COLD if d >= 0 else d for d in right_distances(p, m)])
    assert "access 4 (A): you say COLD, expected R = 1; its shadow entry says 0 and the clock 1" in never.message
    cold = check.refault_test(lambda p, m: [refault.HIT] * len(p))
    assert "access 0 (A): you say HIT, expected COLD; it was never seen before." in cold.message
    hit = check.refault_test(lambda p, m: [refault.COLD if d == refault.HIT else d for d in right_distances(p, m)])
    assert "expected HIT; it is in memory." in hit.message


def test_a_score_is_0_for_the_rule_of_2012_and_1_for_opt():
    found = check.score(refault.RULES["balanced-2012"], {"shift": (traces.shift(50, 50), 60)})
    assert found.loc["shift", "share"] == 0
    found = check.score(refault.RULES["opt"], {"shift": (traces.shift(50, 50), 60)})
    assert found.loc["shift", "share"] == 1


def test_offsets_are_told_by_what_moves_them():
    assert check.offsets(PACKET, "i386", RIGHT)
    wrong = {
        "a": (1, "The first member is where the struct begins."),
        "b": (8, "a ends at 1; b goes to the next multiple of 4"),
        "size": (13, "The last member ends at 16; in an array"),
        "align": (8, "aligned as its strictest member"),
    }
    for name, (value, hint) in wrong.items():
        assert hint in check.offsets(PACKET, "i386", RIGHT | {name: value}).message
    assert "'c' is missing" in check.offsets(PACKET, "i386", {k: v for k, v in RIGHT.items() if k != "c"}).message


def test_a_mended_header_agrees_and_keeps_its_members():
    assert "16 bytes on i386 and 24 on x86-64: interior shift, see b, c" in check.agrees(PACKET).message
    mended = "struct s { char a; char pad[7]; __u64 b; int c; int end; };"
    assert check.agrees(mended, like=PACKET)
    assert "struct s has no member b any more" in check.agrees("struct s { int a, c; };", like=PACKET).message
    assert "never closed" in check.agrees("struct s {").message


def test_readers_are_told_what_went_wrong():
    assert "you took" in check.everybody_answered(READERS["systemd"]).message
    found = check.everybody_answered(READERS["automount 5.0.6"], ["Kent, 3.3-rc5"])
    assert not found
    assert check.everybody_answered(READERS["systemd"], ["packet pipe"])


@pytest.mark.parametrize("name", session.names())
def test_steps_in_order_restore_and_others_are_told_by_number(name):
    snapshot = session.replay(name).snapshot
    steps = restore_steps(snapshot)
    assert check.restores(steps, snapshot)
    found = check.restores(steps[:-6], snapshot)
    assert not found
    assert "at the end" in found.message


ESTABLISHED = session.replay("established-ipv4").snapshot


def place(steps, part):
    return next(k for k, step in enumerate(steps) if part in spelling.call(step))


def test_a_call_that_is_refused_is_told_by_its_number():
    steps = restore_steps(ESTABLISHED)
    i, j = place(steps, "TCP_QUEUE_SEQ"), place(steps, "connect(")
    steps[i], steps[j] = steps[j], steps[i]
    told = check.restores(steps, ESTABLISHED).message
    assert re.match(r"step \d+, .*Is it too early, or too late\?$", told)


@pytest.mark.parametrize("part", ["bind(", "TCP_TIMESTAMP", "TCP_REPAIR_OPTIONS", "TCP_QUEUE_SEQ", "send("])
def test_a_call_that_is_left_out_is_missed(part):
    steps = restore_steps(ESTABLISHED)
    del steps[place(steps, part)]
    assert not check.restores(steps, ESTABLISHED)


def test_windows_that_are_not_set_and_another_peer_are_seen():
    steps = [step for step in restore_steps(ESTABLISHED) if "TCP_REPAIR_WINDOW" not in spelling.call(step)]
    assert not check.restores(steps, ESTABLISHED)
    steps = restore_steps(ESTABLISHED)
    k = place(steps, "connect(")
    steps[k] = steps[k]._replace(args=(("192.0.2.77", 80),))
    assert "the peer's address" in check.restores(steps, ESTABLISHED).message


def test_unfinished_answers_get_a_verdict_too():
    def nothing(*given):
        raise NotImplementedError

    assert check.refault_test(nothing).message == "there is no answer yet."
    assert "TypeError" in check.refault_test(lambda pages, memory: None).message
    assert "TypeError" in check.numbers({"snd_una": None}, ESTABLISHED).message
    assert "TypeError" in check.restores(None, ESTABLISHED).message
    for take in (lambda want: None, lambda want: iter(()), nothing):
        assert not check.everybody_answered(Reader("mine", "automount", lambda host: 300, take))
    assert "ValueError" in check.offsets("struct a { int x; }; struct b { int y; };", "i386", {}).message


def test_numbers_are_told_by_how_far_they_are_off():
    s = session.replay("fin-wait1-ipv4").snapshot
    given = {name: getattr(s, name) for name in check.NUMBERS}
    assert check.numbers(given, s)
    off = check.numbers(given | {"write_seq": s.write_seq - 1}, s)
    assert off.message == "write_seq is -1 off: a FIN or a SYN takes one number"
    assert "rcv_nxt is +300 off" in check.numbers(given | {"rcv_nxt": s.rcv_nxt + 300}, s).message
    assert check.numbers({}, s).message == "'snd_una' is missing."
