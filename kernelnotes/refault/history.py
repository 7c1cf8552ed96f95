"""From the article to today, as data: what became of refault distance in the kernel.

Left out: everything about reclaim that has nothing to do with evicted pages that come back.
"""

from __future__ import annotations

from kernelnotes.history import KERNEL, Moment

HISTORY: tuple[Moment, ...] = (
    Moment(
        "2012-05-01",
        KERNEL,
        "Johannes Weiner posts refault distance: five patches, no benchmark results.",
        "linux-mm, Message-Id 1335861713-4573-1-git-send-email-hannes@cmpxchg.org",
    ),
    Moment(
        "2014-04-03",
        KERNEL,
        "Shadow entries and refault distance are merged. A refault with R no larger than the active list puts the page "
        "there at once. Linux 3.15.",
        "Linux a528910e12ec",
    ),
    Moment(
        "2020-08-12",
        KERNEL,
        "Anonymous pages start on the inactive list, and get shadow entries too. Linux 5.9.",
        "Linux b518154e59aa, aae466b0052e",
    ),
    Moment(
        "2022-10",
        KERNEL,
        "Multi-generational LRU, a second answer to the same question, may be built into a kernel instead. Linux 6.1.",
        "Documentation/mm/multigen_lru.rst, v6.1",
    ),
)
