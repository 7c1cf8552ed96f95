"""Accesses pages of a file in a given order, in a memory cgroup that it enters only when all its own memory is there.

A process of its own, `python -I -S reader.py DATA ORDER PROCS STAT PERIOD`, standard library only:

    DATA    the file; its pages are read one by one with preadv(2), or touched through a mapping, without readahead
    ORDER   per access 8 bytes: four times the page number, and how (traces.READ or MAPPED)
    PROCS   cgroup.procs of the cgroup to enter
    STAT    its memory.stat, read before and after, and each time PERIOD accesses are done (0: never)

What it touches while reading was touched before and is locked, so that nothing but the file's pages is charged to the
cgroup.  Prints one line of JSON: `stats`, pairs of the accesses done
and the text of memory.stat.  ORDER then holds nanoseconds per access, 8 bytes each.
"""

from __future__ import annotations

import ctypes
import gc
import json
import mmap
import os
import sys
import time
from array import array

PAGE = os.sysconf("SC_PAGE_SIZE")
MCL_CURRENT, MCL_FUTURE = 1, 2  # include/uapi/asm-generic/mman.h
FLUSH_S = 2.2  # the kernel folds the statistics every 2 seconds (FLUSH_TIME, mm/memcontrol.c), or later if it is busy
WAITS = 5


def main(data: str, order: str, procs: str, stat: str, period: int) -> None:
    """Read, and say how it went."""
    pages, times = array("q"), array("q")
    with open(order, "rb") as file:
        pages.frombytes(file.read())
    times.frombytes(bytes(8 * len(pages)))
    fd, stat_fd = os.open(data, os.O_RDONLY), os.open(stat, os.O_RDONLY)
    enter = os.open(procs, os.O_WRONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    samples = len(pages) // period if period else 0
    texts = [bytearray(8192) for _ in range(samples + 2)]
    into = [bytearray(PAGE)]
    zero = os.open("/dev/zero", os.O_RDONLY)
    nothing = mmap.mmap(-1, PAGE)
    some = array("q", [0, 1] * 500)
    warm = array("q", bytes(8 * len(some)))
    access_all(zero, nothing, some, warm, into, period and 100, stat_fd, texts[:1] * 10)  # what it will execute
    os.preadv(stat_fd, [texts[0]], 0)
    brought_in(texts[0])  # as above
    texts[0][:] = bytes(len(texts[0]))
    mapped = any(page & 3 for page in pages)
    least = len({page >> 2 for page in pages})  # nothing of the file is cached: the first access to each misses
    ctypes.CDLL(None).mlockall(MCL_CURRENT if mapped else MCL_CURRENT | MCL_FUTURE)  # not what is mapped now
    view = mmap.mmap(fd, 0, prot=mmap.PROT_READ) if mapped else nothing
    if mapped:
        view.madvise(mmap.MADV_RANDOM)
    gc.disable()
    os.write(enter, b"0")
    os.preadv(stat_fd, [texts[0]], 0)
    access_all(fd, view, pages, times, into, period, stat_fd, texts[1:])
    for _ in range(WAITS):
        time.sleep(FLUSH_S)
        texts[-1][:] = bytes(len(texts[-1]))
        os.preadv(stat_fd, [texts[-1]], 0)
        if (counted := brought_in(texts[-1]) - brought_in(texts[0])) >= least:
            break
    else:
        sys.exit(f"after {WAITS * FLUSH_S:.0f} s the kernel has counted {counted} of at least {least} pages read in")
    with open(order, "wb") as file:
        file.write(times.tobytes())
    done = [0, *(period * (i + 1) for i in range(samples)), len(pages)]
    stats = [(n, bytes(text).rstrip(b"\0").decode()) for n, text in zip(done, texts, strict=True)]
    json.dump({"stats": stats}, sys.stdout)


def brought_in(text: bytearray) -> int:
    """Pages that came into the cgroup so far: version 1 counts them, version 2 those that are there and that left."""
    told = {name: int(number) for name, number in map(str.split, text.rstrip(b"\0").decode().splitlines())}
    return told["pgpgin"] if "pgpgin" in told else told["file"] // PAGE + told["pgsteal"]


def access_all(
    fd: int,
    view: mmap.mmap,
    pages: array[int],
    times: array[int],
    into: list[bytearray],
    period: int,
    stat_fd: int,
    texts: list[bytearray],
) -> None:
    """Access the pages in order; texts[i] gets what the kernel counted when (i + 1) * period accesses were done."""
    preadv, now, sample, due = os.preadv, time.perf_counter_ns, 0, period or -1
    for i in range(len(pages)):
        if i == due:
            preadv(stat_fd, [texts[sample]], 0)
            sample += 1
            due += period
        where, way = (pages[i] >> 2) * PAGE, pages[i] & 3
        start = now()
        if way:
            view[where]
        else:
            preadv(fd, into, where)
        times[i] = now() - start
    if due == len(pages):
        preadv(stat_fd, [texts[sample]], 0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
