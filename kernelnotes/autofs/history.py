"""The story as data: who changed what, when, on which side of the pipe, and how one knows.

Each moment says which kernel of `KERNELS` runs from then on, and which readers are installed, where it changes that; so
`served` can work out for each who was served.  Dates are ISO 8601, as exact as the source has them.
Left out: distributions, which shipped all this in their own order.
"""

from __future__ import annotations

from collections.abc import Sequence

from kernelnotes.autofs.matrix import KERNELS, MODES, READERS, play
from kernelnotes.history import KERNEL, USER, Moment

HISTORY: tuple[Moment, ...] = (
    Moment(
        "2006-02-22",
        USER,
        "autofs-tools has the packet of protocol 5 as it still is. The log calls it final, “famous last words”.",
        "autofs-tools 93f43dd6",
        kernel="no fix",
    ),
    Moment(
        "2007-02-20",
        USER,
        "automount 5.0.1 works around the size: where its own struct does not fit and uname says x86_64, it reads four "
        "bytes more.",
        "autofs-tools 35c33d1e",
        readers=("automount 5.0.6",),
    ),
    Moment(
        "2010",
        USER,
        "systemd is new, and reads as many bytes as its own struct has, whatever the machine. A 32-bit one on a 64-bit "
        "kernel gets the first packet right and is four bytes off at the second.",
        "systemd 01f78473b104, src/automount.c",
        readers=("automount 5.0.6", "systemd"),
    ),
    Moment(
        "2012-02",
        KERNEL,
        "Ian Kent's patch, for the sake of systemd: write four bytes less if the mount was made by a 32-bit program. "
        "Linux 3.3-rc5, and stable 3.0.24.",
        "Linux a32744d4abae",
        kernel="Kent, 3.3-rc5",
    ),
    Moment(
        "2012-02-27",
        USER,
        "automount follows: no correction on kernels from 3.3 on, by their version number. Released in July as 5.0.7.",
        "autofs-tools 8c3f7446, ca9d8fe4",
    ),
    Moment(
        "2012-04-22",
        USER,
        "Michael Tokarev reports that the installed automount hangs on 3.0.24 and later.",
        "linux-kernel, 23 April 2012",
    ),
    Moment(
        "2012-04-25",
        USER,
        "Thomas Meyer describes the other side: a 32-bit systemd waits endlessly while it boots. In the same thread a "
        "boot option is considered, and Tokarev suggests to look at the name of the daemon.",
        "linux-kernel, 25 April 2012",
    ),
    Moment(
        "2012-04-28",
        KERNEL,
        "The patch is reverted: automount works again, and systemd does not.",
        "Linux fcbf94b9dedd",
        kernel="revert",
    ),
    Moment(
        "2012-04-29",
        KERNEL,
        "Packetized pipes, and autofs is the first to use one. Linux 3.4-rc5, and stable.",
        "Linux 9883035ae7ed, 64f371bc3107",
        kernel="packet pipe",
    ),
    Moment(
        "2012-07-25",
        USER,
        "autofs-tools 5.0.7 is released, with February's change.",
        "autofs-tools, CHANGELOG",
        readers=("automount 5.0.7", "systemd"),
    ),
    Moment(
        "2014-02-11",
        USER,
        "The manual page pipe(2) tells everybody about O_DIRECT.",
        "man-pages aeabba5095cd",
    ),
    Moment(
        "2018-07-05",
        KERNEL,
        "The module, renamed to autofs in June, is called autofs4 again: systemd loads it by that name.",
        "Linux d02d21ea007b",
    ),
    Moment(
        "2023-10",
        KERNEL,
        "In linux-next, autofs is converted to the new mount API and forgets to set O_DIRECT.",
        "linux-next 546694b8f658",
        kernel="revert",
    ),
    Moment(
        "2023-10",
        USER,
        "A test that boots a 32-bit userland on a 64-bit kernel hangs, without any message from the kernel. Bisection "
        "finds the commit.",
        "autofs mailing list, LKFT report",
    ),
    Moment(
        "2023-10-24",
        KERNEL,
        "The flag is set again, before 6.7 is released.",
        "Linux d3c50061765d",
        kernel="packet pipe",
    ),
)


def served(moments: Sequence[Moment] = HISTORY) -> list[dict[str, bool]]:
    """After each moment: which of the installed 32-bit daemons does a 64-bit kernel serve, {reader: yes or no}.

    Computed by `play`, with requests one after the other.  Raises BadInput as `play` does, KeyError for a kernel or a
    reader without a row.
    """
    kernel, readers = "", tuple[str, ...]()
    found: list[dict[str, bool]] = []
    for moment in moments:
        kernel, readers = moment.kernel or kernel, moment.readers or readers
        cells = [play(KERNELS[kernel], READERS[name], MODES["32-on-64"]) for name in readers] if kernel else []
        found.append({cell.reader: cell.verdict == "ok" for cell in cells})
    return found
