"""What others tell of a connection: /proc/net/tcp, ss, TCP_INFO, and repair mode, side by side.

Each is read for the same things (`THINGS`), as far as it has them.  Numbers are those of the moment it was asked: the
kernel may have sent a segment more in between.

Source: net/ipv4/tcp_ipv4.c, get_tcp4_sock(); include/uapi/linux/tcp.h, struct tcp_info; ss(8).
"""

from __future__ import annotations

import ipaddress
import re
import struct
from typing import TYPE_CHECKING

from kernelnotes.repair import constants as c
from kernelnotes.repair.constants import TcpState
from kernelnotes.repair.snapshot import Snapshot

if TYPE_CHECKING:
    import pandas as pd

    from kernelnotes.repair.scenes import Life

THINGS = (
    "both addresses",
    "state",
    "bytes not read",
    "bytes not acknowledged",
    "of these never sent",
    "window scales",
    "SACK, time stamps",
    "segment size now",
    "window of the peer",
    "largest segment size (clamp)",
    "clock for time stamps",
    "rcv_nxt, write_seq",
    "the bytes themselves",
)


def proc(text: str) -> dict[str, str]:
    """From a line of /proc/net/tcp below its heading."""
    cells = text.splitlines()[1].split()
    local, peer, state, queues = cells[1:5]
    sent, received = (int(number, 16) for number in queues.split(":"))
    return {
        "both addresses": f"{_end(local)}, {_end(peer)}",
        "state": TcpState(int(state, 16)).name,
        "bytes not read": f"{received:,}",
        "bytes not acknowledged": f"{sent:,}",
    }


def _end(text: str) -> str:
    # The four bytes of the address as one number of this machine, little-endian on those that have been asked.
    address, port = text.split(":")
    return f"{ipaddress.ip_address(bytes.fromhex(address)[::-1])}:{int(port, 16)}"


def ss(text: str) -> dict[str, str]:
    """From what `ss -tien` prints of one connection; {} where it printed nothing."""
    if not text.strip():
        return {}
    state, received, sent, local, peer = text.split()[:5]
    found = dict(re.findall(r"(\w+):(\S+)", text))
    told = {
        "both addresses": f"{local}, {peer}",
        "state": f"TCP_{ {'ESTAB': 'ESTABLISHED'}.get(state, state).replace('-', '_') }",
        "bytes not read": f"{int(received):,}",
        "bytes not acknowledged": f"{int(sent):,}",
        "of these never sent": f"{int(found.get('notsent', 0)):,}",
        "segment size now": found.get("mss", ""),
        "window of the peer": f"{int(found['snd_wnd']):,}" if "snd_wnd" in found else "",
    }
    if "wscale" in found:
        told["window scales"] = found["wscale"].replace(",", " and ")
    told["SACK, time stamps"] = ", ".join("yes" if word in text.split() else "no" for word in ("sack", "ts"))
    return {thing: value for thing, value in told.items() if value}


def info(data: bytes) -> dict[str, str]:
    """From struct tcp_info."""
    state, offered, scales, notsent = c.INFO.unpack_from(data)
    told = {
        "state": TcpState(state).name,
        "of these never sent": f"{notsent:,}",
        "SACK, time stamps": ", ".join("yes" if offered & bit else "no" for bit in (c.TCPI_OPT_SACK, 1)),
        "segment size now": str(struct.unpack_from("=I", data, 16)[0]),
    }
    if offered & c.TCPI_OPT_WSCALE:
        told["window scales"] = f"{scales & 15} and {scales >> 4}"
    if len(data) >= 232:  # tcpi_snd_wnd, since Linux 5.4
        told["window of the peer"] = f"{struct.unpack_from('=I', data, 228)[0]:,}"
    return told


def repair(s: Snapshot) -> dict[str, str]:
    """From a dump."""
    return {
        "both addresses": f"{s.local[0]}:{s.local[1]}, {s.peer[0]}:{s.peer[1]}",
        "state": TcpState(s.state).name,
        "bytes not read": f"{len(s.recv_queue):,}",
        "bytes not acknowledged": f"{len(s.send_queue):,}",
        "of these never sent": f"{s.unsent:,}",
        "window scales": f"{s.snd_wscale} and {s.rcv_wscale}",
        "SACK, time stamps": ", ".join("yes" if there else "no" for there in (s.sack, s.timestamp is not None)),
        "window of the peer": f"{s.window.snd_wnd:,}",
        "largest segment size (clamp)": str(s.mss_clamp),
        "clock for time stamps": str(s.timestamp),
        "rcv_nxt, write_seq": f"{s.rcv_nxt}, {s.write_seq}",
        "the bytes themselves": f"{bytes(s.recv_queue[:12])!r} ..."[1:],
    }


def table(life: Life) -> pd.DataFrame:
    """A row per thing, a column per source; empty where the source does not have it."""
    import pandas as pd

    columns = {
        "/proc/net/tcp": proc(life.proc),
        "ss": ss(life.ss),
        "TCP_INFO": info(life.info),
        "repair mode": repair(life.moments[life.at].snapshot),
    }
    return pd.DataFrame(columns, index=list(THINGS)).astype(object).where(lambda frame: frame.notna(), None)
