"""Problems about sequence numbers, queues, and the order in which a connection comes back."""

from __future__ import annotations

import random
from dataclasses import replace

from kernelnotes.quiz import Code, Draft, Table
from kernelnotes.repair import Snapshot, TcpState, restore_steps, session, spelling
from kernelnotes.repair.constants import AF_INET, AF_INET6, Window
from kernelnotes.repair.segment import Flags, Segment, relative, signed

WRAP = 2**32


def _snapshot(rng: random.Random) -> Snapshot:
    near = rng.random() < 0.5  # to where the numbers wrap
    start = [WRAP - rng.randint(1, 900) if near else rng.randrange(WRAP) for _ in range(2)]
    received, sent = rng.randint(1, 999), rng.randint(2, 999)
    unsent = rng.randint(0, sent - 1)
    wscale = rng.randint(0, 10)
    return Snapshot(
        state=TcpState.TCP_ESTABLISHED,
        family=AF_INET,
        local=("192.0.2.1", 40000),
        peer=("192.0.2.2", 80),
        recv_queue=bytes(received),
        rcv_nxt=(start[0] + received) % WRAP,
        send_queue=bytes(sent),
        write_seq=(start[1] + sent) % WRAP,
        unsent=unsent,
        mss_clamp=1460,
        snd_wscale=wscale,
        rcv_wscale=wscale,
        window=Window((start[0]) % WRAP, 4000, 4000, 4000, (start[0] + received) % WRAP),
    )


def queues(rng: random.Random) -> Draft:
    """The numbers that the queues begin with."""
    s = _snapshot(rng)
    received, sent = len(s.recv_queue), len(s.send_queue)
    return Draft(
        title="Where the queues begin",
        question=(
            "A live connection is frozen. `TCP_QUEUE_SEQ` says "
            f"{s.rcv_nxt} for the receive queue and {s.write_seq} for the send queue: the ends of both. The queues "
            f"hold {received} and {sent} bytes (`SIOCINQ`, `SIOCOUTQ`), and {s.unsent} bytes were never sent "
            "(`SIOCOUTQNSD`). No FIN has been seen.",
            "What must `TCP_QUEUE_SEQ` be set to on the new socket, for each queue, before the bytes are put back? "
            "Which number has the first byte that was never sent? What will the peer acknowledge at most?",
        ),
        steps=(
            "On the new socket the queues are empty, and filling them moves the numbers to where they were. So each "
            "begins its length earlier, modulo 2**32.",
            f"Receive: {s.rcv_nxt} - {received} = {s.rcv_nxt - received}, which is {s.copied_seq}.",
            f"Send: {s.write_seq} - {sent} = {s.write_seq - sent}, which is {s.send_start}.",
            f"Never sent: {s.write_seq} - {s.unsent} = {s.write_seq - s.unsent}, which is {s.unsent_seq}.",
        ),
        answer=f"Receive queue {s.copied_seq}, send queue {s.send_start}; the first byte never sent is {s.unsent_seq}, "
        "and that is also the largest number that the peer can acknowledge.",
    )


def earlier(rng: random.Random) -> Draft:
    """Which of two sequence numbers is earlier."""
    a = rng.randrange(WRAP)
    far = rng.choice((1, -1)) * (rng.randint(1, 5000) if rng.random() < 0.5 else rng.randint(2**30, 2**31 - 1))
    b = (a + far) % WRAP
    difference = signed(b - a)
    return Draft(
        title="Earlier or later",
        question=(
            f"Two sequence numbers of one stream: a = {a}, b = {b}.",
            "Which one is earlier for TCP, and by how many bytes?",
        ),
        steps=(
            "The kernel subtracts modulo 2**32 and looks at the result as a signed number (`before()` in "
            "include/net/tcp.h); comparing the numbers themselves is wrong wherever they wrap.",
            f"b - a = {b - a}, modulo 2**32 {(b - a) % WRAP}, signed {difference}.",
        ),
        answer=f"{'a' if difference > 0 else 'b'}, by {abs(difference)} bytes.",
    )


def window(rng: random.Random) -> Draft:
    """A window on the wire, and how far the peer may send."""
    scale = rng.randint(1, 10)
    field = rng.randint(1, 65535)
    ack = WRAP - rng.randint(1, 60000) if rng.random() < 0.4 else rng.randrange(WRAP)
    right = (ack + (field << scale)) % WRAP
    sent = rng.randint(0, field << scale)
    return Draft(
        title="A window on the wire",
        question=(
            f"Our host acknowledges {ack} with {field} in the window field. Its SYN had announced a window scale of "
            f"{scale}. The peer has sent {sent} bytes beyond the acknowledged one.",
            "How many bytes more may the peer send? Which sequence number must it not reach beyond? A restore that "
            "forgets `TCPOPT_WINDOW` takes the scale for 0: how many bytes does it believe to offer?",
        ),
        steps=(
            f"The field counts in units of 2**{scale}: {field} << {scale} = {field << scale} bytes.",
            f"{ack} + {field << scale} = {ack + (field << scale)}, modulo 2**32 {right}.",
            f"{field << scale} - {sent} = {(field << scale) - sent}.",
        ),
        answer=f"{(field << scale) - sent} bytes, up to {right}. Without the scale it is {field} bytes: "
        f"{1 << scale} times too few.",
    )


def order(rng: random.Random) -> Draft:
    """The steps of a restore, shuffled."""
    s = replace(_snapshot(rng), unsent=0, family=rng.choice((AF_INET, AF_INET6)))
    if s.family == AF_INET6:
        s = replace(s, local=("2001:db8::1", 40000, 0, 0), peer=("2001:db8::2", 80, 0, 0))
    wanted = ("TCP_REPAIR, ", "bind(", "TCP_QUEUE_SEQ", "connect(", "TCP_REPAIR_OPTIONS", "send(", "TCP_REPAIR_WINDOW")
    chosen, queue = [], ""
    for call in (spelling.call(step) for step in restore_steps(s)):
        if "TCP_REPAIR_QUEUE" in call:
            queue = "to the send queue: " if "SEND" in call else "to the receive queue: " if "RECV" in call else ""
        elif any(part in call for part in wanted):
            chosen.append((queue if "TCP_QUEUE_SEQ" in call or call.startswith("send(") else "") + call)
    shuffled = chosen[:]
    while shuffled == chosen:
        rng.shuffle(shuffled)
    named = dict(zip(shuffled, "abcdefghijklmnopqrstuvwxyz", strict=False))
    return Draft(
        title="A restore, shuffled",
        question=(
            "These calls of a restore were written down in no order (the queue is selected by `TCP_REPAIR_QUEUE`):",
            Code("\n".join(f"{letter})  {call}" for call, letter in named.items())),
            "Put them in order. Which ones would the kernel refuse, or quietly do something else, at the wrong time?",
        ),
        steps=(
            "Repair mode comes before everything: in it a port in use is no obstacle for bind(), and connect() sends "
            "no SYN.",
            "The sequence numbers come before connect(): afterwards they are in use, and the kernel refuses (EPERM).",
            "Options, queues and windows need a connection, so they come behind connect(). The windows come last: the "
            "kernel checks them against the sequence numbers, which filling the queues has moved.",
            "Leaving repair mode is the end: with it a window probe goes out, and the peer learns where we are.",
            Code("\n".join(f"{named[call]})  {call}" for call in chosen)),
            "Three things are free: which queue comes first, whether the address comes before the numbers, and where "
            "between connect() and the windows the options are set.",
        ),
        answer=" ".join(named[call] for call in chosen) + ", or another order that differs in nothing but these three.",
    )


def capture(rng: random.Random) -> Draft:
    """A connection's state from what was on the wire."""
    start = {"client": rng.randrange(WRAP), "server": rng.randrange(WRAP)}
    ends = {"client": ("192.0.2.1", 40000), "server": ("192.0.2.2", 80)}
    sent = dict.fromkeys(start, 1)  # the SYN
    seen = {"client": 1, "server": 1}  # what each has acknowledged of the other
    packets = []

    def say(who: str, flags: Flags, length: int = 0) -> None:
        other = "server" if who == "client" else "client"
        (src, sport), (dst, dport) = ends[who], ends[other]
        first = Flags.SYN in flags
        packets.append(
            Segment(
                src=src, sport=sport, dst=dst, dport=dport, flags=flags,
                seq=(start[who] + (0 if first else sent[who])) % WRAP,
                ack=(start[other] + seen[who]) % WRAP if Flags.ACK in flags else 0,
                payload=bytes(length),
            )
        )  # fmt: skip
        sent[who] += length

    say("client", Flags.SYN)
    say("server", Flags.SYN | Flags.ACK)
    say("client", Flags.ACK)
    for _ in range(rng.randint(4, 7)):
        who = rng.choice(("client", "server"))
        other = "server" if who == "client" else "client"
        if rng.random() < 0.6:
            say(who, Flags.ACK | Flags.PSH, rng.randint(1, 1200))
        else:
            seen[who] = sent[other]
            say(who, Flags.ACK)
    una = seen["server"]  # of what the client has sent
    absolute = {name: (start["client"] + number) % WRAP for name, number in (("una", una), ("end", sent["client"]))}
    rcv = (start["server"] + seen["client"]) % WRAP
    rows = tuple(
        (
            "client > server" if p.src == "192.0.2.1" else "server > client",
            str(p.flags), str(p.seq), str(p.ack) if Flags.ACK in p.flags else "-", str(p.length),
        )
        for p in packets
    )  # fmt: skip
    table = relative(packets)
    return Draft(
        title="A snapshot from a capture",
        question=(
            "All that was on the wire between two hosts:",
            Table(("direction", "flags", "seq", "ack", "bytes"), rows),
            "At this moment the client is dumped. What is `snd_una`, how many bytes does its send queue hold if all "
            "that was written was sent, what is `write_seq`, and what is the largest `rcv_nxt` that it has told?",
        ),
        steps=(
            "With numbers that count from each side's SYN:",
            Table(
                ("direction", "flags", "seq", "ack", "bytes"),
                tuple(
                    (row[0], row[1], str(p.seq), str(p.ack) if Flags.ACK in p.flags else "-", row[4])
                    for row, p in zip(rows, table, strict=True)
                ),
            ),
            f"The server's last acknowledgement is {una}; the client's last byte is {sent['client'] - 1}: "
            f"{sent['client']} - {una} = {sent['client'] - una} bytes wait for an acknowledgement.",
            f"The client has acknowledged up to {seen['client']}.",
        ),
        answer=f"snd_una {absolute['una']}, {sent['client'] - una} bytes in the send queue, write_seq {absolute['end']}"
        f", rcv_nxt {rcv}.",
    )


def recorded(rng: random.Random) -> Draft:
    """A dump of a real kernel, step by step."""
    name = rng.choice([name for name in session.names() if name.startswith(("established", "close-wait", "fin-wait"))])
    s = session.replay(name).snapshot
    told = (
        ("receive queue, bytes", len(s.recv_queue)),
        ("send queue, bytes", len(s.send_queue)),
        ("never sent, bytes", s.unsent),
        ("TCP_QUEUE_SEQ, receive", s.rcv_nxt),
        ("TCP_QUEUE_SEQ, send", s.write_seq),
    )
    fins = [what for what, is_there in (("the peer's", s.fin_received), ("our own", s.fin_queued)) if is_there]
    return Draft(
        title=f"A connection in {s.state.name}",
        question=(
            f"A real connection was dumped in state `{s.state.name}` ({session.load(name).provenance}):",
            Table(("what the kernel said", "value"), tuple((what, str(value)) for what, value in told)),
            "A FIN takes one sequence number. With which numbers do the two queues begin?",
        ),
        steps=(
            f"In this state {' and '.join(fins) if fins else 'no'} FIN has a number: "
            f"the peer's {'counts in rcv_nxt' if s.fin_received else 'has not come'}, ours "
            f"{'counts in write_seq' if s.fin_queued else 'was not written'}.",
            f"Receive: {s.rcv_nxt} - {int(s.fin_received)} - {len(s.recv_queue)} = {s.copied_seq} modulo 2**32.",
            f"Send: {s.write_seq} - {int(s.fin_queued)} - {len(s.send_queue)} = {s.send_start} modulo 2**32.",
        ),
        answer=f"Receive queue from {s.copied_seq}, send queue from {s.send_start}.",
    )


KINDS = (queues, earlier, window, order, capture, recorded)
