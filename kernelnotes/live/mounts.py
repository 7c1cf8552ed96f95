"""mount(2) and umount2(2), which Python does not have, and what is mounted on what.

Source: mount(2), umount2(2), proc_pid_mountinfo(5); include/uapi/linux/mount.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
from pathlib import Path
from typing import NamedTuple

from kernelnotes.errors import CallFailed

MS_BIND, MS_REC, MS_SLAVE = 4096, 16384, 1 << 19
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8


class Mounted(NamedTuple):
    """A line of /proc/self/mountinfo: mount `id` hangs on mount `parent` at `point`; `options` are the superblock's.

    `source` is what mount(2) was told, for autofs the name that the daemon gave itself.
    """

    id: int
    parent: int
    device: int
    point: str
    fstype: str
    options: dict[str, str]
    source: str


def mounted() -> list[Mounted]:
    """What this process sees mounted; of two at the same point the later one covers the earlier one."""
    return [_line(line) for line in Path("/proc/self/mountinfo").read_bytes().splitlines()]


def _line(line: bytes) -> Mounted:
    left, right = line.split(b" - ")
    number, parent, device, _, point = left.split()[:5]
    major, minor = map(int, device.split(b":"))
    options = (os.fsdecode(word).partition("=") for word in right.split(b" ")[-1].split(b","))
    return Mounted(
        int(number),
        int(parent),
        os.makedev(major, minor),
        os.fsdecode(_plain(point)),
        os.fsdecode(right.split()[0]),
        {key: value for key, _, value in options},
        os.fsdecode(_plain(right.split(b" ")[1])),
    )


def _plain(name: bytes) -> bytes:
    r"""A blank in a name is written \040."""
    return re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), name)


def below(mount: int) -> list[str]:
    """The points of all that hangs on the mount of this id, directly or not, in the order of unmounting."""
    everything = mounted()

    def covering(number: int) -> list[str]:
        return [p for m in reversed(everything) if m.parent == number for p in [*covering(m.id), m.point]]

    return covering(mount)


def mount_id(fd: int) -> int:
    """The id of the mount that an open file lies in."""
    text = Path(f"/proc/self/fdinfo/{fd}").read_text()
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("mnt_id:")))


def mount(source: str, target: str, fstype: str = "", flags: int = 0, options: str = "", *, inside: int = -1) -> None:
    """Mount a file system or, with MS_BIND, a folder.  Raises CallFailed.

    With `inside`, an open folder, `target` is a path from there, and no other folder that has got its name in the
    meantime is meant.  This holds below, too.
    """
    given = [os.fsencode(text) if text else None for text in (source, _from(inside, target), fstype, options)]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(*given[:3], ctypes.c_ulong(flags), given[3]):
        _fail(f"mount {fstype or source} on {target}")


def unmount(target: str, *, inside: int = -1) -> bool:
    """umount2(2) of what covers `target`; what is in use is detached: out of sight now, gone with its last user.

    What is mounted below it counts as a use and goes with it.  True if it had to be detached.  Raises CallFailed.
    """
    try:
        unmount_idle(target, inside=inside)
    except CallFailed as e:
        if e.errno != errno.EBUSY:
            raise
        _umount2(target, inside, UMOUNT_NOFOLLOW | MNT_DETACH)
        return True
    return False


def unmount_idle(target: str, *, inside: int = -1) -> None:
    """umount2(2) of what covers `target`.  Raises CallFailed: EBUSY where it is in use, EINVAL where nothing does."""
    _umount2(target, inside, UMOUNT_NOFOLLOW)


def _umount2(target: str, inside: int, flags: int) -> None:
    if ctypes.CDLL(None, use_errno=True).umount2(os.fsencode(_from(inside, target)), flags):
        _fail(f"unmount {target}")


def _from(inside: int, target: str) -> str:
    # mount(2) and umount2(2) know no dir_fd.
    return f"/proc/self/fd/{inside}/{target}" if inside >= 0 else target


def _fail(step: str) -> None:
    number = ctypes.get_errno()
    raise CallFailed(number, f"{step}: {os.strerror(number)}")
