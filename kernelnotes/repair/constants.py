"""The names and numbers of TCP_REPAIR, as the kernel's headers spell them: one grep finds kernel, code and book.

The numbers of SOL_SOCKET are those of asm-generic/socket.h: alpha, mips, parisc and sparc have others.

Source: include/uapi/linux/tcp.h, in.h, in6.h, include/uapi/asm-generic/socket.h, include/net/tcp_states.h.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

SOL_SOCKET, IPPROTO_IP, IPPROTO_TCP, IPPROTO_IPV6 = 1, 0, 6, 41
AF_INET, AF_INET6 = 2, 10
MSG_PEEK, MSG_DONTWAIT, MSG_NOSIGNAL = 0x2, 0x40, 0x4000
SHUT_WR = 1
POLLPRI, POLLERR = 0x2, 0x8
SIOCINQ = 0x541B  # include/uapi/linux/sockios.h: bytes not read by the application; a FIN is not counted
SIOCOUTQ = 0x5411  # bytes the peer has not acknowledged; our own FIN counts as one


class TcpOption(IntEnum):
    """Options of IPPROTO_TCP.  Source: include/uapi/linux/tcp.h."""

    TCP_NODELAY = 1
    TCP_MAXSEG = 2
    TCP_CORK = 3
    TCP_KEEPIDLE = 4
    TCP_KEEPINTVL = 5
    TCP_KEEPCNT = 6
    TCP_SYNCNT = 7
    TCP_LINGER2 = 8
    TCP_WINDOW_CLAMP = 10
    TCP_INFO = 11
    TCP_CONGESTION = 13
    TCP_THIN_LINEAR_TIMEOUTS = 16
    TCP_USER_TIMEOUT = 18
    TCP_REPAIR = 19
    TCP_REPAIR_QUEUE = 20
    TCP_QUEUE_SEQ = 21
    TCP_REPAIR_OPTIONS = 22
    TCP_TIMESTAMP = 24
    TCP_NOTSENT_LOWAT = 25
    TCP_REPAIR_WINDOW = 29
    TCP_ULP = 31


class SocketOption(IntEnum):
    """Options of SOL_SOCKET.  Source: include/uapi/asm-generic/socket.h."""

    SO_REUSEADDR = 2
    SO_SNDBUF = 7
    SO_RCVBUF = 8
    SO_KEEPALIVE = 9
    SO_OOBINLINE = 10
    SO_PRIORITY = 12
    SO_LINGER = 13
    SO_REUSEPORT = 15
    SO_RCVLOWAT = 18
    SO_RCVTIMEO = 20
    SO_SNDTIMEO = 21
    SO_BINDTODEVICE = 25
    SO_ATTACH_FILTER = 26  # reading it is SO_GET_FILTER
    SO_DETACH_FILTER = 27
    SO_SNDBUFFORCE = 32
    SO_RCVBUFFORCE = 33
    SO_MARK = 36
    SO_PROTOCOL = 38
    SO_PEEK_OFF = 42
    SO_LOCK_FILTER = 44
    SO_MAX_PACING_RATE = 47
    SO_BUF_LOCK = 72


class IpOption(IntEnum):
    """Options of IPPROTO_IP.  Source: include/uapi/linux/in.h."""

    IP_TOS = 1
    IP_TTL = 2
    IP_MTU_DISCOVER = 10
    IP_RECVERR = 11
    IP_FREEBIND = 15
    IP_TRANSPARENT = 19


class Ipv6Option(IntEnum):
    """Options of IPPROTO_IPV6.  Source: include/uapi/linux/in6.h."""

    IPV6_UNICAST_HOPS = 16
    IPV6_MTU_DISCOVER = 23
    IPV6_RECVERR = 25
    IPV6_V6ONLY = 26
    IPV6_TCLASS = 67


class TcpState(IntEnum):
    """The state of a connection.  Source: include/net/tcp_states.h."""

    TCP_ESTABLISHED = 1
    TCP_SYN_SENT = 2
    TCP_SYN_RECV = 3
    TCP_FIN_WAIT1 = 4
    TCP_FIN_WAIT2 = 5
    TCP_TIME_WAIT = 6
    TCP_CLOSE = 7
    TCP_CLOSE_WAIT = 8
    TCP_LAST_ACK = 9
    TCP_LISTEN = 10
    TCP_CLOSING = 11
    TCP_NEW_SYN_RECV = 12


# {number: state}, as TcpState(number) in a tenth of the time.
TCP_STATES = {int(state): state for state in TcpState}
# Values of TCP_REPAIR: off sends one window probe, off without a probe sends nothing.
TCP_REPAIR_ON, TCP_REPAIR_OFF, TCP_REPAIR_OFF_NO_WP = 1, 0, -1
# Values of TCP_REPAIR_QUEUE: which queue the next recv, send and TCP_QUEUE_SEQ are about.
TCP_NO_QUEUE, TCP_RECV_QUEUE, TCP_SEND_QUEUE = 0, 1, 2
# Codes in struct tcp_repair_opt {u32 opt_code; u32 opt_val;}; TCP_REPAIR_OPTIONS takes an array of them.
TCPOPT_MSS, TCPOPT_WINDOW, TCPOPT_SACK_PERM, TCPOPT_TIMESTAMP = 2, 3, 4, 8
# Bits of tcpi_options.
TCPI_OPT_TIMESTAMPS, TCPI_OPT_SACK, TCPI_OPT_WSCALE, TCPI_OPT_USEC_TS = 1, 2, 4, 64
# Bits of SO_BUF_LOCK: the size was set by hand, and the kernel does not tune it any more.
SOCK_SNDBUF_LOCK, SOCK_RCVBUF_LOCK = 1, 2

REPAIR_OPT = struct.Struct("=2I")
REPAIR_WINDOW = struct.Struct("=5I")
# struct tcp_info up to tcpi_notsent_bytes (Linux 4.6): state, options, the two window scales in one byte (a bit-field:
# the peer's is the lower half on little-endian machines), and the bytes that were never sent.
INFO = struct.Struct("=B4xBB137xI")


class Window(NamedTuple):
    """struct tcp_repair_window: what the two ends have promised each other to take.  Since Linux 4.8."""

    snd_wl1: int  # sequence number of the segment that last updated snd_wnd
    snd_wnd: int  # bytes that the peer will take beyond snd_una
    max_window: int  # the largest snd_wnd ever seen
    rcv_wnd: int  # bytes that we said we would take beyond rcv_wup
    rcv_wup: int  # rcv_nxt when we said it last


# A program of classic BPF for a socket, as an array of struct sock_filter {u16 code; u8 jt, jf; u32 k;}.
SOCK_FILTER = struct.Struct("=HBBI")
MARK = 0xC114  # on packets that we make ourselves; the mark that CRIU uses
_LOAD_WORD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD+BPF_W+BPF_ABS, BPF_JMP+BPF_JEQ+BPF_K, BPF_RET+BPF_K
_SKF_AD_MARK = 0xFFFFF000 + 20
# Nothing comes in, but for what carries the mark: the lock of a connection that is frozen or being restored.
DROP_UNMARKED = b"".join(
    SOCK_FILTER.pack(*instruction)
    for instruction in (
        (_LOAD_WORD, 0, 0, _SKF_AD_MARK),
        (_EQUAL, 0, 1, MARK),
        (_RETURN, 0, 0, 0xFFFFFFFF),
        (_RETURN, 0, 0, 0),
    )
)
