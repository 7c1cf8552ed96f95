"""Two streams in plain integers that never wrap, and the snapshots that a kernel would make of them.

A stream is what one side ever put into it: its SYN, its bytes, its FIN, one sequence number each, the first one `isn`.
Three counts say how far it has come.  `Snapshot` works the other way round, from the ends and the lengths, mod 2**32.
"""

from dataclasses import dataclass

from hypothesis import strategies as st

from kernelnotes.repair import OPTIONS, Snapshot, TcpState, Window
from kernelnotes.repair.constants import AF_INET, AF_INET6

ADDRESSES = {
    "IPv4": (AF_INET, ("192.0.2.1", 40000), ("192.0.2.2", 80)),
    "IPv6": (AF_INET6, ("2001:db8::1", 40000, 0, 0), ("2001:db8::2", 80, 0, 0)),
    "mapped": (AF_INET6, ("::ffff:192.0.2.1", 40000, 0, 0), ("::ffff:192.0.2.2", 80, 0, 0)),
}
SYN, FIN = "SYN", "FIN"


@dataclass(frozen=True)
class Stream:
    """One direction: items are bytes (as ints), SYN and FIN; `gone` of them are over, `moved` are on their way."""

    isn: int
    items: tuple
    gone: int  # sent: acknowledged by the peer; received: read by the application
    moved: int  # sent: handed to the network at least once

    def number(self, index):
        """The sequence number of the item at this place; of the one after the last too."""
        return (self.isn + index) % 2**32

    def data(self, first=0):
        """The bytes from this place on."""
        return bytes(item for item in self.items[first:] if isinstance(item, int))

    @property
    def fin(self):
        return FIN in self.items

    @property
    def fin_gone(self):
        return FIN in self.items[: self.gone]


@dataclass(frozen=True)
class Connection:
    """Both directions of one connection, as seen by one end."""

    sent: Stream
    received: Stream

    @property
    def state(self):
        ours = "acked" if self.sent.fin_gone else "queued" if self.sent.fin else "none"
        table = {  # RFC 9293, figure 5; what acknowledges our FIN in LAST_ACK ends the connection
            ("none", False): TcpState.TCP_ESTABLISHED,
            ("queued", False): TcpState.TCP_FIN_WAIT1,
            ("acked", False): TcpState.TCP_FIN_WAIT2,
            ("none", True): TcpState.TCP_CLOSE_WAIT,
            ("queued", True): TcpState.TCP_LAST_ACK,
            ("acked", True): TcpState.TCP_CLOSE,
        }
        return table[ours, self.received.fin]

    def snapshot(self, closing=False, **others):
        """What the kernel tells: the ends, the queues, what was never sent."""
        state, sent = self.state, self.sent
        if closing and state is TcpState.TCP_LAST_ACK:  # the two differ in who was first
            state = TcpState.TCP_CLOSING
        family, local, peer = ADDRESSES["IPv4"]
        return Snapshot(
            **{
                "state": state,
                "family": family,
                "local": local,
                "peer": peer,
                "recv_queue": self.received.data(self.received.gone),
                "rcv_nxt": self.received.number(len(self.received.items)),
                "send_queue": sent.data(sent.gone),
                "write_seq": sent.number(len(sent.items)),
                "unsent": len(sent.data(sent.moved)),
                "fin_unsent": FIN in sent.items[sent.moved :],
                **others,
            }
        )


words = st.one_of(st.integers(0, 2**32 - 1), st.integers(2**32 - 40, 2**32 - 1), st.integers(2**31 - 40, 2**31))


@st.composite
def streams(draw):
    data, fin = draw(st.binary(max_size=60)), draw(st.booleans())
    items = (SYN, *data, *([FIN] if fin else []))
    gone = draw(st.integers(1, len(items)))  # the handshake is over
    return Stream(draw(words), items, gone, draw(st.integers(gone, len(items))))


connections = st.builds(Connection, streams(), streams())


def _value(name, option):
    if name == "TCP_CONGESTION":
        return st.sampled_from([b"cubic", b"reno", b"a_name_of_15_by"])
    if name in ("TCP_CORK", "SO_REUSEADDR"):
        return st.sampled_from([0, 1])
    size = option.size
    return st.binary(min_size=size, max_size=size) if size else st.integers(-(2**31), 2**31 - 1)


@st.composite
def snapshots(draw):
    """Any snapshot that a connection could be in."""
    family, local, peer = draw(st.sampled_from(list(ADDRESSES.values())))
    port = st.integers(1, 65535)
    scales = draw(st.one_of(st.just((None, None)), st.tuples(st.integers(0, 14), st.integers(0, 14))))
    w = draw(st.one_of(st.tuples(*[words] * 5), st.just((0,) * 5)))
    others = {
        "family": family,
        "local": (local[0], draw(port), *local[2:]),
        "peer": (peer[0], draw(port), *peer[2:]),
        "mss_clamp": draw(st.integers(1, 65535)),
        "snd_wscale": scales[0],
        "rcv_wscale": scales[1],
        "sack": draw(st.booleans()),
        "timestamp": draw(st.one_of(st.none(), words)),
        "window": Window(w[0], min(w[1:3]), max(w[1:3]), *w[3:]),
        "interface": draw(st.sampled_from(["", "eth0", "wlp2s0", "Ärger", "a" * 15])),
        "options": draw(
            st.fixed_dictionaries(
                {}, optional={n: _value(n, o) for n, o in OPTIONS.items() if family == AF_INET6 or not o.ipv6}
            )
        ),
        "filter": draw(st.binary(max_size=5)) * 8,
        "taken": draw(st.floats(0, 2**50)),
        "identity": draw(st.binary(min_size=16, max_size=16)),
    }
    if draw(st.integers(0, 8)) == 0:
        return Snapshot(state=TcpState.TCP_SYN_SENT, write_seq=draw(words), **others)
    return draw(connections).snapshot(closing=draw(st.booleans()), **others)
