"""The plan, with no kernel: what is restored is dumped as the same, each rule of the order, each refusal by name."""

import copy
import errno
from dataclasses import replace
from pathlib import Path

import pytest
from connections import ADDRESSES, connections, snapshots
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kernelnotes.errors import BadInput, CallFailed
from kernelnotes.repair import (
    OPTIONS,
    STATES,
    Snapshot,
    Step,
    TcpOption,
    TcpState,
    Window,
    commit_steps,
    dump_steps,
    freeze_steps,
    look_steps,
    perform,
    prepare_steps,
    release_steps,
    restore_steps,
    resume_steps,
    run,
    steps,
)
from kernelnotes.repair import constants as c
from kernelnotes.repair.segment import Flags, from_ip
from kernelnotes.repair.steps import elapsed_ms
from kernelnotes.repair.toy import LOCK, ToySocket, after

S = TcpState


@st.composite
def consistent(draw):
    """Snapshots whose window block the kernel takes, small enough for the toy, which has but one size of buffer."""
    s = draw(snapshots())
    w, near = s.window, draw(st.integers(0, 2**20))
    if w != (0,) * 5:
        w = Window((s.rcv_nxt - near) % 2**32, w.snd_wnd, w.max_window, near, (s.rcv_nxt - 1) % 2**32)
    options = {n: v for n, v in s.options.items() if n not in ("SO_SNDBUF", "SO_RCVBUF", "SO_BUF_LOCK")}
    return replace(s, window=w, options=options)


def frozen(toy, peer=None):
    """Look at it and freeze it, as live.repair does."""
    before = run(look_steps(toy.family, peer), toy.calls())
    run(freeze_steps(before), toy.calls())
    return before


def dumped(toy, peer=None):
    """The snapshot of a socket that is alive."""
    return run(dump_steps(frozen(toy, peer)), toy.calls())


def restored(s, **options):
    toy = ToySocket(s.family)
    perform(restore_steps(s, **options), toy.calls())
    return toy


# ------------------------------------------------------------------------------------- there and back


def acceptable(window):
    """Where the kernel took all of its window back, snd_wl1 may be beyond it, and would not be taken again."""
    beyond = (window.snd_wl1 - window.rcv_wup - window.rcv_wnd) % 2**32
    return window._replace(snd_wl1=window.rcv_wup) if 0 < beyond < 2**31 else window


@given(consistent(), st.booleans())
@settings(max_examples=200, deadline=None)
def test_what_was_restored_is_dumped_as_the_same(s, probe):
    assume(probe or s.window != (0,) * 5)
    again = dumped(restored(s, probe=probe), s.peer)
    if s.state is S.TCP_SYN_SENT:  # nothing was agreed on yet, and nobody has a window
        kept = ("state", "family", "local", "peer", "write_seq", "interface", "filter")
        assert [getattr(again, n) for n in kept] == [getattr(s, n) for n in kept]
        return
    window = again.window if s.state is S.TCP_CLOSE else acceptable(s.window)  # in CLOSE none counts any more
    options = {n: v for n, v in s.options.items() if v != OPTIONS[n].unset}  # what a new socket has is not kept
    options |= {n: again.options[n] for n in ("SO_SNDBUF", "SO_RCVBUF", "TCP_CONGESTION")}
    assert again == replace(s, window=window, options=options, taken=again.taken, identity=again.identity)
    assert again.options["TCP_CONGESTION"] == s.options.get("TCP_CONGESTION", b"")


@given(connections, st.booleans())
def test_a_dump_tells_what_the_streams_are(connection, closing):
    # The toy is put into the state by hand: no step of ours took part.
    sent, received = connection.sent, connection.received
    s = connection.snapshot(closing)
    toy = ToySocket()
    toy.state, toy.local, toy.peer = s.state, s.local, s.peer
    toy.received, toy.rcv_nxt = received.data(received.gone), received.number(len(received.items))
    toy.written, toy.snd_una = sent.data(sent.gone), sent.number(sent.gone)
    toy.snd_nxt, toy.write_seq = sent.number(sent.moved), sent.number(len(sent.items))
    again = dumped(toy, s.peer)
    same = ("state", "recv_queue", "rcv_nxt", "send_queue", "write_seq", "unsent", "fin_unsent")
    assert [getattr(again, n) for n in same] == [getattr(s, n) for n in same]


@given(consistent())
@settings(deadline=None)
def test_a_restored_socket_is_unlocked_and_out_of_repair_mode(s):
    toy = restored(s)
    assert (toy.repair, toy.filter, toy.blocking) == (False, s.filter, True)


@given(consistent(), st.booleans())
@settings(deadline=None)
def test_a_packet_leaves_at_the_end_only(s, probe):
    assume(probe or s.window != (0,) * 5)
    toy = ToySocket(s.family)
    perform(prepare_steps(s), toy.calls())
    assert (toy.packets, toy.repair, toy.filter) == ([], True, LOCK)
    perform(commit_steps(s, probe), toy.calls())
    if s.state is S.TCP_SYN_SENT:
        assert toy.packets == [("SYN", s.send_start)]
    else:
        assert toy.packets == (["probe"] if probe and s.state is S.TCP_ESTABLISHED else [])


def alive(**others):
    """A connection in the middle of its life, and its socket."""
    family, local, peer = ADDRESSES["IPv4"]
    s = Snapshot(**{
        "state": S.TCP_ESTABLISHED, "family": family, "local": local, "peer": peer, "recv_queue": b"in",
        "rcv_nxt": 1000, "send_queue": b"outgoing", "unsent": 3, "write_seq": 5, "window": Window(900, 1, 2, 500, 990),
        "snd_wscale": 7, "rcv_wscale": 6, "sack": True, "timestamp": 40, **others,
    })  # fmt: skip
    return s, restored(s)


def state_of(toy):
    return copy.deepcopy({n: v for n, v in vars(toy).items() if n not in ("log", "before_call", "packets")})


@pytest.mark.parametrize("changes", [{}, {"filter": bytes(8)}, {"options": {"SO_REUSEADDR": 1, "SO_PEEK_OFF": 3}},
                                     {"options": {"SO_OOBINLINE": 1}}])  # fmt: skip
def test_after_freeze_dump_and_resume_all_is_as_it_was(changes):
    _, toy = alive(**changes)
    earlier = state_of(toy)
    before = frozen(toy)
    assert (toy.repair, toy.filter) == (True, LOCK)
    run(dump_steps(before), toy.calls())
    perform(resume_steps(before), toy.calls())
    assert state_of(toy) == earlier | {"queue": toy.queue}
    assert toy.packets[1:] == ["probe"]


def breaking(toy, after_calls):
    """Every call but the first few fails."""
    left = [after_calls]

    def breaks(name, args):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.EIO, "broken")

    toy.before_call = breaks


def freeze_and_dump(toy, before):
    run(freeze_steps(before), toy.calls())
    return run(dump_steps(before), toy.calls())


def test_resuming_is_right_wherever_freezing_or_dumping_broke_off():
    changes = {"filter": bytes(8), "options": {"SO_REUSEADDR": 1, "SO_PEEK_OFF": 3}}
    _, toy = alive(**changes)
    earlier, before = state_of(toy), run(look_steps(toy.family), toy.calls())
    calls = len(toy.log)
    freeze_and_dump(toy, before)
    calls = len(toy.log) - calls
    assert calls > 60
    for broken in range(calls):
        _, toy = alive(**changes)
        breaking(toy, broken)
        with pytest.raises(CallFailed, match="broken"):
            freeze_and_dump(toy, before)
        toy.before_call = lambda name, args: None
        perform(resume_steps(before), toy.calls())
        assert state_of(toy) == earlier | {"queue": toy.queue}, broken


def test_looking_and_dumping_change_nothing():
    _, toy = alive()
    earlier = state_of(toy)
    before = run(look_steps(toy.family), toy.calls())
    assert state_of(toy) == earlier
    run(freeze_steps(before), toy.calls())
    earlier, at = state_of(toy), len(toy.log)
    run(dump_steps(before), toy.calls())
    assert state_of(toy) == earlier | {"queue": c.TCP_NO_QUEUE}
    changing = {args[:2] for call, args in toy.log[at:] if call == "setsockopt"}
    assert changing == {(c.IPPROTO_TCP, TcpOption.TCP_REPAIR_QUEUE)}
    assert {call for call, _ in toy.log[at:]} == {"getsockopt", "setsockopt", "ioctl", "recv", "clock", "random"}


def test_release_is_silent():
    _, toy = alive()
    frozen(toy)
    toy.packets.clear()
    perform(release_steps(), toy.calls())
    assert (toy.packets, toy.state, toy.repair, toy.filter) == ([], S.TCP_CLOSE, False, b"")


# ------------------------------------------------------------------------------------- a dump that is disturbed


def arriving(toy, when):
    """`when(how many times its numbers were read)`: one byte comes in then, as without a lock."""
    seen = [0]

    def arrives(name, args):
        if name == "ioctl" and args == (c.SIOCOUTQ,):
            seen[0] += 1
            if when(seen[0]):
                toy.received += b"!"
                toy.rcv_nxt = (toy.rcv_nxt + 1) % 2**32

    toy.before_call = arrives
    return seen


def test_what_arrives_during_a_dump_is_in_it():
    s, toy = alive()
    before = frozen(toy)
    seen = arriving(toy, lambda n: n == 2)
    again = run(dump_steps(before), toy.calls())
    assert (again.recv_queue, again.rcv_nxt, seen) == (b"in!", 1001, [3])
    assert again.copied_seq == s.copied_seq


def test_a_connection_that_does_not_come_to_rest_is_given_up():
    _, toy = alive()
    before = frozen(toy)
    seen = arriving(toy, lambda n: True)
    with pytest.raises(CallFailed, match="changed during each of 8 reads; is it locked") as caught:
        run(dump_steps(before), toy.calls())
    assert (caught.value.errno, seen) == (errno.EAGAIN, [1 + steps.MOST_TRIES])


@pytest.mark.parametrize("queue", ["received", "written"])
def test_a_queue_that_is_longer_than_the_kernel_says_is_no_snapshot(queue):
    _, toy = alive()
    before = frozen(toy)
    setattr(toy, queue, getattr(toy, queue) + b"?")
    calls = toy.calls() | {"ioctl": lambda request: 2 if request == c.SIOCINQ else 8}
    with pytest.raises(CallFailed, match="changed during"):
        run(dump_steps(before), calls)


def test_a_kernel_without_the_window_block_is_dumped_without():
    _, toy = alive()
    before = frozen(toy)
    get = toy.calls()["getsockopt"]

    def older(level, number, size=0):
        if (level, number) == (c.IPPROTO_TCP, TcpOption.TCP_REPAIR_WINDOW):
            raise OSError(errno.ENOPROTOOPT, "Protocol not available")
        return get(level, number, size)

    assert run(dump_steps(before), toy.calls() | {"getsockopt": older}).window == (0,) * 5


@pytest.mark.parametrize(
    ("clock", "flag", "kept"), [(1001, 0, 1000), (1000, 64, 1001), (1001, 64, 1001), (-1, 0, 2**32 - 2)]
)
def test_an_odd_clock_of_an_old_kernel_is_made_even(clock, flag, kept):
    _, toy = alive()
    before = frozen(toy)
    get = toy.calls()["getsockopt"]

    def told(level, number, size=0):
        if (level, number) == (c.IPPROTO_TCP, TcpOption.TCP_TIMESTAMP):
            return clock
        if (level, number) == (c.IPPROTO_TCP, TcpOption.TCP_INFO):
            state, offered, scales, notsent = c.INFO.unpack(get(level, number, size))
            return c.INFO.pack(state, offered & ~64 | flag, scales, notsent)
        return get(level, number, size)

    assert run(dump_steps(before), toy.calls() | {"getsockopt": told}).timestamp == kept


# ------------------------------------------------------------------------------------- refusals before anything changes


def answers(**others):
    """An answer of the socket other than usual: {"poll": 2} for a call, {"TCP_INFO": ...} for an option."""
    _, toy = alive()
    calls = toy.calls()
    get = calls["getsockopt"]
    numbers = {(level, int(n)): n.name for level, names in ((1, c.SocketOption), (6, TcpOption)) for n in names}

    def getsockopt(level, number, size=0):
        name = numbers.get((level, number))
        return others[name] if name in others else get(level, number, size)

    def told(answer):
        if isinstance(answer, OSError):
            raise answer
        return answer

    changed = {n: (lambda *_, answer=v: told(answer)) for n, v in others.items() if n.islower()}
    return toy, calls | {"getsockopt": getsockopt} | changed


NOT_CONNECTED = OSError(errno.ENOTCONN, "Transport endpoint is not connected")
REFUSALS = {
    "MPTCP": ({"SO_PROTOCOL": 262}, "protocol 262 .262 is MPTCP., expected TCP"),
    "LISTEN": ({"TCP_INFO": c.INFO.pack(10, 0, 0, 0)}, "TCP_LISTEN cannot be dumped; expected one of TCP_CLOSE,"),
    "SYN_RECV": ({"TCP_INFO": c.INFO.pack(3, 0, 0, 0)}, "TCP_SYN_RECV cannot be dumped"),
    "TIME_WAIT": ({"TCP_INFO": c.INFO.pack(6, 0, 0, 0)}, "TCP_TIME_WAIT cannot be dumped"),
    "repair mode": ({"TCP_REPAIR": 1}, "in repair mode already"),
    "kTLS": ({"TCP_ULP": b"tls\0"}, "tls is on top"),
    "urgent data": ({"poll": c.POLLPRI}, r"urgent data is pending.*MSG_OOB"),
    "an error": ({"poll": c.POLLERR}, r"error is pending.*SO_ERROR"),
    "a locked filter": ({"SO_LOCK_FILTER": 1}, "SO_LOCK_FILTER"),
    "an eBPF filter": ({"get_filter": OSError(errno.EACCES, "Permission denied")}, "eBPF filter"),
    "no peer": ({"getpeername": NOT_CONNECTED}, "does not tell the peer's address any more: expected `peer`"),
}


@pytest.mark.parametrize(("others", "words"), REFUSALS.values(), ids=REFUSALS)
def test_what_cannot_be_dumped_is_refused_before_anything_changes(others, words):
    toy, calls = answers(**others)
    earlier = state_of(toy)
    with pytest.raises(BadInput, match=words):
        run(look_steps(toy.family), calls)
    assert state_of(toy) == earlier


@pytest.mark.parametrize("peer", [("localhost", 80), ("192.0.2.2", 0), ("192.0.2.2", 80, 0, 0), ("::1", 80)])
def test_a_peer_that_is_no_address_is_refused_before_anything_is_asked(peer):
    toy = ToySocket()
    with pytest.raises(BadInput, match=r"^peer"):
        run(look_steps(toy.family, peer), toy.calls())
    assert toy.log == []


def test_the_kernels_word_about_the_peer_counts_more_than_the_callers():
    _, toy = alive()
    assert run(look_steps(toy.family, ("192.0.2.77", 7)), toy.calls()).peer == ("192.0.2.2", 80)


def test_urgent_data_that_shows_in_line_only_is_refused():
    _, toy = alive()
    before = run(look_steps(toy.family), toy.calls())
    lengths = iter((3, 7))
    with pytest.raises(BadInput, match="urgent data is in the receive queue"):
        run(freeze_steps(before), toy.calls() | {"ioctl": lambda request: next(lengths)})
    perform(resume_steps(before), toy.calls())
    assert (toy.repair, toy.filter, toy.options[1, 10]) == (False, b"", 0)


def test_a_step_that_the_kernel_refuses_is_named():
    toy = ToySocket()
    with pytest.raises(CallFailed, match="] select no queue: EPERM") as caught:
        perform([steps.SELECT_NONE], toy.calls())
    assert caught.value.errno == errno.EPERM
    assert perform([Step("x", "connect", ((),), (errno.EIO,))], {"connect": lambda _: toy_fails(errno.EIO)}) == [None]


def toy_fails(number):
    raise OSError(number, "fails")


# ------------------------------------------------------------------------------------- the order


def places(plan, call, *first):
    """Where in the plan this call with these first arguments stands."""
    return [i for i, step in enumerate(plan) if step.call == call and step.args[: len(first)] == first]


def tcp(plan, option, *value):
    return places(plan, "setsockopt", c.IPPROTO_TCP, int(option), *value)


def plans(examples=60):
    """A rule holds for the plan of any snapshot."""

    def decorate(rule):
        @given(consistent())
        @settings(max_examples=examples, deadline=None)
        def checked(s):
            rule(s, restore_steps(s))

        checked.__name__ = checked.__qualname__ = rule.__name__
        return checked

    return decorate


@plans()
def test_repair_mode_comes_first_and_the_lock_before_an_address(s, plan):
    assert tcp(plan, TcpOption.TCP_REPAIR)[0] == 0
    assert plan[0].args[2] == c.TCP_REPAIR_ON
    assert places(plan, "attach_filter", LOCK) == [1]
    assert places(plan, "bind")[0] > 1


@plans()
def test_sequence_numbers_are_set_before_connect_each_behind_its_queue(s, plan):
    [connect] = places(plan, "connect")
    begins = tcp(plan, TcpOption.TCP_QUEUE_SEQ)
    assert begins[-1] < connect
    expected = {c.TCP_SEND_QUEUE: s.send_start}
    if s.state is not S.TCP_SYN_SENT:
        expected[c.TCP_RECV_QUEUE] = s.copied_seq
    assert {plan[i - 1].args[2]: plan[i].args[2] % 2**32 for i in begins} == expected
    assert all(plan[i - 1].args[1] == TcpOption.TCP_REPAIR_QUEUE for i in begins)


@plans()
def test_what_was_agreed_on_is_set_between_connect_and_the_first_byte(s, plan):
    [connect] = places(plan, "connect")
    agreed = tcp(plan, TcpOption.TCP_REPAIR_OPTIONS)
    assert len(agreed) == (s.state is not S.TCP_SYN_SENT)
    data = places(plan, "send_all") + places(plan, "shutdown") + places(plan, "inject")
    assert all(connect < i < min(data, default=len(plan)) for i in agreed)
    assert all(agreed[0] < i < min(data, default=len(plan)) for i in tcp(plan, TcpOption.TCP_TIMESTAMP))


@plans()
def test_the_segment_size_comes_before_connect_and_early_options_before_bind(s, plan):
    [maxseg], [bind], [connect] = tcp(plan, TcpOption.TCP_MAXSEG), places(plan, "bind"), places(plan, "connect")
    assert maxseg < connect
    for name in s.options:
        option = OPTIONS[name]
        found = places(plan, "setsockopt", option.level, option.number)
        if not option.late and s.options[name] == plan[found[0]].args[2]:
            assert found[0] < bind


@plans()
def test_the_window_is_the_last_thing_before_the_late_options(s, plan):
    windows = [Window(*c.REPAIR_WINDOW.unpack(plan[i].args[2])) for i in tcp(plan, TcpOption.TCP_REPAIR_WINDOW)]
    if s.window == (0,) * 5 or s.state is S.TCP_SYN_SENT:
        assert not windows
        return
    data = places(plan, "send_all") + places(plan, "shutdown") + places(plan, "inject")
    last = tcp(plan, TcpOption.TCP_REPAIR_WINDOW)[-1]
    if s.state is S.TCP_CLOSE:
        assert windows[-1].snd_wnd == 0
    else:
        assert windows[-1] == acceptable(s.window)
        assert max(data, default=0) < last
    leaving = tcp(plan, TcpOption.TCP_REPAIR)[-1]
    assert last < leaving


@plans()
def test_nothing_can_leave_while_repair_mode_is_off_in_the_middle(s, plan):
    *switches, _ = tcp(plan, TcpOption.TCP_REPAIR)
    if s.state is S.TCP_SYN_SENT:
        return
    for off, on in zip(switches[1::2], switches[2::2], strict=True):
        assert (plan[off].args[2], plan[on].args[2]) == (c.TCP_REPAIR_OFF_NO_WP, c.TCP_REPAIR_ON)
        assert plan[off - 1] == steps.SELECT_NONE
        assert {step.call for step in plan[off + 1 : on]} <= {"send_all", "shutdown"}
        windows = [i for i in tcp(plan, TcpOption.TCP_REPAIR_WINDOW) if i < off]
        assert all(c.REPAIR_WINDOW.unpack(plan[i].args[2])[1] == 0 for i in windows)
        assert bool(windows) == (s.window != (0,) * 5)


@plans()
def test_at_the_end_no_queue_then_unlock_then_leave(s, plan):
    leave = tcp(plan, TcpOption.TCP_REPAIR)[-1]
    unlock = (places(plan, "setsockopt", 1, 27) + places(plan, "attach_filter", s.filter if s.filter else None))[-1]
    none = tcp(plan, TcpOption.TCP_REPAIR_QUEUE)[-1]
    assert (plan[none].args[2], plan[leave].args[2]) == (
        c.TCP_NO_QUEUE,
        c.TCP_REPAIR_OFF_NO_WP if s.state is S.TCP_SYN_SENT else c.TCP_REPAIR_OFF,
    )
    assert (unlock, leave) == (none + 1, none + 2)
    assert places(plan, "setsockopt", 1, int(c.SocketOption.SO_REUSEADDR)) == [leave + 1]


@plans()
def test_fins_are_made_in_the_order_in_which_this_state_comes_about(s, plan):
    def kind(step):
        if step.call == "shutdown":
            return "ours"
        return "theirs" if from_ip(step.args[0]).flags & Flags.FIN else "acked"

    order = {
        S.TCP_FIN_WAIT1: ["ours"],
        S.TCP_FIN_WAIT2: ["ours", "acked"],
        S.TCP_CLOSE_WAIT: ["theirs"],
        S.TCP_LAST_ACK: ["theirs", "ours"],
        S.TCP_CLOSING: ["ours", "theirs"],
        S.TCP_CLOSE: ["theirs", "ours", "acked"],
    }
    assert [kind(step) for step in plan if step.call in ("shutdown", "inject")] == order.get(s.state, [])


@plans()
def test_every_byte_goes_into_its_queue_once(s, plan):
    queue, repair, found = None, True, {"received": b"", "sent": b"", "unsent": b""}
    for step in plan:
        if step.call == "setsockopt" and step.args[:2] == (6, TcpOption.TCP_REPAIR_QUEUE):
            queue = step.args[2]
        elif step.call == "setsockopt" and step.args[:2] == (6, TcpOption.TCP_REPAIR):
            repair = step.args[2] == 1
        elif step.call == "send_all":
            found[{1: "received", 2: "sent"}[queue] if repair else "unsent"] += bytes(step.args[0])
    assert found == {"received": s.recv_queue, "sent": s.unacked, "unsent": s.never_sent}


@plans()
def test_the_plan_is_its_two_halves(s, plan):
    assert plan == prepare_steps(s) + commit_steps(s)


@given(consistent(), st.integers(0, 10**9))
def test_the_clock_is_set_later_by_the_time_that_went_by(s, elapsed_ms):
    plan = restore_steps(s, elapsed_ms)
    set_to = [plan[i].args[2] % 2**32 for i in tcp(plan, TcpOption.TCP_TIMESTAMP)]
    if s.timestamp is None or s.state is S.TCP_SYN_SENT:
        assert not set_to
    else:
        assert set_to == [s.timestamp_after(elapsed_ms)]
        assert elapsed_ms > 2**20 or not after(s.timestamp, set_to[0])


@given(st.floats(0, 2**31), st.floats(-10, 1000))
def test_the_clock_does_not_go_back_however_time_is_rounded_or_set_back(taken, gone_by):
    ms = elapsed_ms(taken, taken + gone_by)
    assert ms >= max(0, gone_by * 1000 - 0.01) + 3
    assert ms < max(0, gone_by * 1000) + 4.01


def test_large_queues_get_room_first_and_their_buffers_back():
    for name, queue, option in (("SO_SNDBUF", "send_queue", 7), ("SO_RCVBUF", "recv_queue", 8)):
        s, toy = alive(**{queue: bytes(100_000), "unsent": 0, "options": {name: 262144}})
        plan = restore_steps(s)
        [room], [buffer] = places(plan, "room"), places(plan, "buffer")
        first = next(i for i in places(plan, "send_all") if len(plan[i].args[0]) == 100_000)
        assert room < first < buffer
        assert plan[room].args == (option, 100_000 + (65536 if option == 7 else 0))
        assert plan[buffer].args == (option, 131072)
        assert (toy.options[1, option], toy.options[1, 72]) == (262144, 0)  # tuned by the kernel, as before


def test_a_buffer_set_by_hand_stays_so():
    _, toy = alive(options={"SO_SNDBUF": 20000, "SO_RCVBUF": 30000, "SO_BUF_LOCK": 1})
    assert (toy.options[1, 7], toy.options[1, 8], toy.options[1, 72]) == (20000, 131072, 1)


def test_without_the_windows_the_probe_cannot_be_left_out():
    s, _ = alive(window=Window(0, 0, 0, 0, 0))
    with pytest.raises(BadInput, match=r"without the windows .* the probe must be sent"):
        restore_steps(s, probe=False)


# ------------------------------------------------------------------------------------- the plans, printed

GOLDEN = Path(__file__).parent / "data" / "repair_steps.txt"


def shown(value):
    if isinstance(value, bytes | memoryview):
        data = bytes(value)
        return repr(data) if len(data) < 12 and data.isascii() and data.decode().isprintable() else f"<{data.hex()}>"
    return repr(int(value)) if isinstance(value, int) and not isinstance(value, bool) else repr(value)


def printed():
    """Every state's plan, of one small connection, as text."""
    lines = []
    for state in sorted(STATES):
        for name in ("IPv4", "mapped") if state in (S.TCP_ESTABLISHED, S.TCP_CLOSE) else ("IPv4",):
            family, local, peer = ADDRESSES[name]
            first = state is S.TCP_SYN_SENT
            acked = first or state in (S.TCP_CLOSE, S.TCP_FIN_WAIT2)
            fin_waits = state in (S.TCP_FIN_WAIT1, S.TCP_LAST_ACK, S.TCP_CLOSING)
            s = Snapshot(
                state=state, family=family, local=local, peer=peer, recv_queue=b"" if first else b"unread",
                rcv_nxt=0 if first else 1000, send_queue=b"" if acked else b"sent|not", write_seq=2**31 + 5,
                unsent=0 if acked else 4, fin_unsent=fin_waits, mss_clamp=1460, snd_wscale=7, rcv_wscale=6, sack=True,
                timestamp=5000, window=Window(990, 64000, 65535, 32000, 999), options={"TCP_NODELAY": 1}, taken=0.0,
            )  # fmt: skip
            lines.append(f"{state.name}, {name}")
            for step in restore_steps(s):
                lines.append(f"  {step.what:<38} {step.call}({', '.join(map(shown, step.args))})")
            lines.append("")
    return "\n".join(lines)


def test_the_plans_are_those_that_were_looked_through():
    assert printed() == GOLDEN.read_text()
