"""From the article to today, as data: what kernel and programs learned about connections that move, and how one knows.

Left out: patches that were not merged, and what other systems have.
"""

from __future__ import annotations

from kernelnotes.history import KERNEL, USER, Moment

HISTORY: tuple[Moment, ...] = (
    Moment(
        "2012-05-01",
        KERNEL,
        "The article: TCP_REPAIR in its fourth version is in net-next, for Linux 3.5. A socket may enter repair mode "
        "when it is closed or established.",
        "LWN 495304; Linux ee9952831cfd",
    ),
    Moment(
        "2012-07-23",
        USER,
        "Version 0.1 of the tool that is to move whole containers, CRIU, by the same authors.",
        "criu.org, History",
    ),
    Moment(
        "2013-02",
        KERNEL,
        "TCP_TIMESTAMP: each socket has an offset to the clock of its time stamps, since two hosts do not have the "
        "same clock. Linux 3.9.",
        "Linux ceaa1fef9d2c, 93be6ce0e91b",
    ),
    Moment(
        "2013-11-25",
        USER,
        "CRIU 1.0: all that it needs of the kernel has been merged by 3.11.",
        "criu.org, History",
    ),
    Moment(
        "2016",
        KERNEL,
        "TCP_REPAIR_WINDOW: the windows of both ends can be read and set. Linux 4.8.",
        "net/ipv4/tcp.c, tcp_repair_set_window()",
    ),
    Moment(
        "2016-11-14",
        KERNEL,
        "Repair mode in all states but LISTEN, so that half-closed connections can be dumped too. Linux 4.10.",
        "Linux 319b0534b958",
    ),
    Moment(
        "2025-02",
        USER,
        "passt moves the connections of a virtual machine with it, helped by a small program that may enter repair "
        "mode.",
        "passt-repair(1)",
    ),
    Moment(
        "2026-05-17",
        KERNEL,
        "A patch would have a socket in repair mode drop what comes in. The answer: a filter must do that, the fast "
        "path gets no test for it.",
        "linux-kernel, “tcp: Don't accept data when socket is in repair mode”",
    ),
)
