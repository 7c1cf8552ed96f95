"""What distinguishes the rule sets that share a step function, each difference under a name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Choices(NamedTuple):
    """What a step function looks up; 0 and 1 are no and yes."""

    # of the article, step function `two_lists`
    inactive_share: int = 50  # percent of memory below which reclaim first moves active pages to the inactive list
    entry_after_tick: int = 1  # the shadow entry keeps the time after its own eviction ticked (2012, 3.15), or before
    activation_ticks: int = 1  # an activation advances workingset_time too
    reclaim_ticks: int = 0  # `linux`: so does a mapped page that reclaim puts on the active list, or leaves there
    active_pages: int = 0  # step function `fixed_lists` only: length of the active list
    refault_demotes: int = (
        0  # a refault with R < length of the active list demotes one active page (`linux`: some time)
    )
    # of the yardsticks `2q`, `s3fifo` (inactive_share: of the list of new pages) and `arc`
    ghosts: int = 0  # percent of memory: how many pages that have left it are remembered
    # of Linux, step function `linux`
    refault_activates: int = 0  # a refault with R <= length of the active list goes straight there (since 3.15)
    refaults_deactivate: int = 0  # reclaim also deactivates while refaults are activated (since 4.13)
    ratio: int = 1  # the active list may be so many times as long as the inactive one; 0: the root of 10 times the GiB
    second_reference: int = 0  # the first read of a page only marks it, the second one activates (PG_referenced)
    repeats_collapse: int = 0  # reads of one page in a row are one reference
    batch: int = 1  # pages that are put on a list at once; 31 since 6.9, 15 before
    scan_by_priority: int = 0  # reclaim takes 32 pages or more from growing parts of both lists, or one page
    stale_statistics: int = 0  # it decides on what the memory statistics said at the last flush
    charged_nodes: int = 0  # the xarray nodes that hold pages and shadow entries take memory too
    shrink_nodes: int = 0  # and are freed if there are too many with nothing but shadow entries


# What can be left out of a rule set, and the choices that leave it out.
DETAILS: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "refault activation": {"refault_activates": 0},
        "deactivation on refaults": {"refaults_deactivate": 0},
        "square root ratio": {"ratio": 1},
        "activation ticks": {"activation_ticks": 0},
        "ticks of reclaim": {"reclaim_ticks": 0},
        "entry before the tick": {"entry_after_tick": 1},
        "referenced bit": {"second_reference": 0},
        "collapsed repeats": {"repeats_collapse": 0},
        "batches": {"batch": 1},
        "priority scan": {"scan_by_priority": 0},
        "stale statistics": {"stale_statistics": 0},
        "charged nodes": {"charged_nodes": 0, "shrink_nodes": 0},
        "shadow shrinker": {"shrink_nodes": 0},
    }
)

# How a reader sees the choices of `linux`: in words, what was chosen.
_WORDS: Mapping[str, tuple[str, Mapping[int, str]]] = MappingProxyType(
    {
        "refault_demotes": ("a refault with R < active", {0: "-", 1: "earns a credit; reclaim spends it"}),
        "refault_activates": (
            "a refault with R <= active",
            {0: "enters the inactive list", 1: "enters the active list"},
        ),
        "refaults_deactivate": ("activated refaults since the last reclaim", {0: "-", 1: "let it deactivate"}),
        "ratio": ("active may be so many times inactive", {1: "1", 0: "sqrt(10 x GiB)"}),
        "activation_ticks": ("the clock ticks at", {0: "evictions", 1: "evictions and activations"}),
        "reclaim_ticks": ("mapped pages that reclaim activates, or leaves active", {0: "do not tick", 1: "tick"}),
        "entry_after_tick": ("the shadow entry is written", {0: "before the tick", 1: "after the tick"}),
        "second_reference": ("a page is activated at", {0: "its second access", 1: "its second reference"}),
        "repeats_collapse": ("reads of one page in a row", {0: "each count", 1: "count once"}),
        "batch": ("pages put on a list at once", {}),
        "scan_by_priority": ("reclaim takes", {0: "a page", 1: "32 to 62 pages"}),
        "stale_statistics": ("it decides on lengths", {0: "as they are", 1: "as of the last flush"}),
        "charged_nodes": ("xarray nodes", {0: "cost nothing", 1: "take memory"}),
        "shrink_nodes": ("nodes full of shadow entries", {0: "stay", 1: "are freed"}),
    }
)


def in_words(choices: Choices) -> dict[str, str]:
    """The choices of a rule set of Linux, in words: what is decided, and how."""
    made = choices._asdict()
    return {what: words.get(made[name], str(made[name])) for name, (what, words) in _WORDS.items()}
