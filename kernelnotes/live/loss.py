"""Losing a share of the TCP packets between two hosts: an nftables rule in the switch between them.

    meta iif PORT meta oif PORT meta l4proto tcp numgen random mod 1000000 < N counter drop

The rule is in the switch, not in a host, because a host's own firewall tells TCP that it drops: the segment then counts
as not sent, while one that is lost on the way is waited for.  netem, the usual tool, is missing in many kernels.
A lost packet is in a capture at its sender and not in one at its receiver.  ARP, neighbour discovery and ping pass.

Source: net/netfilter/nft_numgen.c; the bridge family is in nft(8).
"""

from __future__ import annotations

import itertools
import struct
from functools import partial
from typing import Any

from kernelnotes.errors import BadInput, CallFailed, Unavailable
from kernelnotes.live.netlink import Netlink

NFPROTO_BRIDGE, NF_DROP, REGISTER = 7, 0, 8  # NFT_REG32_00, include/uapi/linux/netfilter/nf_tables.h
META_IIF, META_OIF, META_L4PROTO = 4, 5, 16
EQUAL, LESS, HTON, RANDOM, IPPROTO_TCP = 0, 2, 1, 1, 6
PARTS = 1_000_000
_numbers = itertools.count(1)


class Loss:
    """Drops `share` (0 to 1) of the TCP packets that come in at port `source` and go out at port `target` (None: any).

    Ports are interface numbers in the network namespace `network`, a file descriptor.  Until `stop`, the end of the
    `with` block, or of the namespace.  Raises BadInput, and Unavailable where the kernel has no such rules.
    """

    def __init__(self, network: int, share: float, source: int | None = None, target: int | None = None) -> None:
        if not 0 <= share <= 1:
            raise BadInput(f"loss: a share of {share}, expected 0 to 1")
        from pyroute2.netlink.exceptions import NetlinkError
        from pyroute2.nftables.main import NFTables

        self.share, self._table, self._final = share, f"loss{next(_numbers)}", -1
        self._nft = Netlink(partial(NFTables, nfgen_family=NFPROTO_BRIDGE), network)
        try:
            self._nft.table("add", name=self._table)
            self._nft.chain("add", table=self._table, name="way", hook="forward", policy=1)
            self._nft.rule(
                "add", table=self._table, chain="way", expressions=[_rule(round(share * PARTS), source, target)]
            )
        except NetlinkError as e:
            self._nft.close()
            raise Unavailable(
                f"loss: nftables said: {e}. Remedy: a kernel with CONFIG_NF_TABLES_BRIDGE and CONFIG_NFT_NUMGEN"
            ) from e
        except BaseException:
            self._nft.close()
            raise

    @property
    def dropped(self) -> int:
        """How many packets were dropped so far, as the kernel counted them."""
        return self._counted() if self._final < 0 else self._final

    def _counted(self) -> int:
        for rule in self._nft.get_rules():
            if rule.get_attr("NFTA_RULE_TABLE") == self._table:
                for expression in rule.get_attr("NFTA_RULE_EXPRESSIONS"):
                    if expression.get_attr("NFTA_EXPR_NAME") == "counter":
                        return int(expression.get_attr("NFTA_EXPR_DATA").get_attr("NFTA_COUNTER_PACKETS"))
        raise CallFailed(0, "loss: the rule has gone")

    def stop(self) -> None:
        """Let everything pass again.  May be called again."""
        if self._final >= 0:
            return
        self._final = 0
        try:
            self._final = self._counted()
            self._nft.table("del", name=self._table)
        finally:
            self._nft.close()

    def __enter__(self) -> Loss:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _rule(parts: int, source: int | None, target: int | None) -> list[Any]:
    steps = []
    for key, port in ((META_IIF, source), (META_OIF, target)):
        if port is not None:
            steps += [_meta(key), _compare(EQUAL, struct.pack("=I", port))]
    steps += [_meta(META_L4PROTO), _compare(EQUAL, bytes([IPPROTO_TCP]))]
    if parts < PARTS:
        steps += [
            _expression("numgen", NG_DREG=REGISTER, NG_MODULUS=PARTS, NG_TYPE=RANDOM, NG_OFFSET=0),
            # Numbers are compared byte by byte, so the highest byte must come first.
            _expression(
                "byteorder",
                BYTEORDER_SREG=REGISTER,
                BYTEORDER_DREG=REGISTER,
                BYTEORDER_OP=HTON,
                BYTEORDER_LEN=4,
                BYTEORDER_SIZE=4,
            ),
            _compare(LESS, struct.pack(">I", parts)),
        ]
    verdict = {"attrs": [("NFTA_DATA_VERDICT", {"attrs": [("NFTA_VERDICT_CODE", NF_DROP)]})]}
    return [
        *steps,
        _expression("counter", COUNTER_BYTES=0, COUNTER_PACKETS=0),
        _expression("immediate", IMMEDIATE_DREG=0, IMMEDIATE_DATA=verdict),
    ]


def _meta(key: int) -> Any:
    return _expression("meta", META_KEY=key, META_DREG=REGISTER)


def _compare(operator: int, value: bytes) -> Any:
    data = {"attrs": [("NFTA_DATA_VALUE", value)]}
    return _expression("cmp", CMP_SREG=REGISTER, CMP_OP=operator, CMP_DATA=data)


def _expression(name: str, **attributes: Any) -> Any:
    content = {"attrs": [(f"NFTA_{key}", value) for key, value in attributes.items()]}
    return {"attrs": [("NFTA_EXPR_NAME", name), ("NFTA_EXPR_DATA", content)]}
