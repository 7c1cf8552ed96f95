"""Self-checks: right answers pass, wrong ones are told where they are wrong."""

import pytest

from kernelnotes import check, refault, traces
from kernelnotes.autofs import READERS
from kernelnotes.repair import restore_steps, session

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
    assert "step 1, " in check.restores(steps[1:], snapshot).message or not check.restores(steps[1:], snapshot)
    found = check.restores(steps[:-6], snapshot)
    assert not found
    assert "at the end" in found.message


def test_numbers_are_told_by_how_far_they_are_off():
    s = session.replay("fin-wait1-ipv4").snapshot
    given = {name: getattr(s, name) for name in check.NUMBERS}
    assert check.numbers(given, s)
    off = check.numbers(given | {"write_seq": s.write_seq - 1}, s)
    assert off.message == "write_seq is -1 off: a FIN or a SYN takes one number"
    assert "rcv_nxt is +300 off" in check.numbers(given | {"rcv_nxt": s.rcv_nxt + 300}, s).message
    assert check.numbers({}, s).message == "'snd_una' is missing."
