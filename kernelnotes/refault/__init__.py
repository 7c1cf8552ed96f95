"""The active list, the inactive list, shadow entries and the refault distance.

A page is on one of two lists or out of memory, and moves between them (the article of 2 May 2012; the opening
comment of mm/workingset.c has today's version of this picture):

     fault                            second access
    ------->  INACTIVE list  -------------------------------->  ACTIVE list
              newest ... oldest  <----------------------------  newest ... oldest
                            |        demotion: the active list
                            |        outgrew the inactive one,
                            v        or a refault asks for room
                         evicted: a shadow entry keeps the time

Time is counted in events, not in seconds: `workingset_time` advances by one whenever a page leaves the inactive
list, by eviction or by activation.  The shadow entry keeps its value at the eviction.  When the page comes back,
a *refault*,

    R = workingset_time - shadow entry

is the **refault distance**: how many pages left the inactive list while this one was away.  The proposal reads R
as the number of pages by which the inactive list was too short, and demotes an active page if there are more than
R of them.

A **rule set** is a step function, which handles one access, and a row of choices that it looks up (`RULES`).  The
same step function serves `Memory`, one access at a time on plain lists, and `replay`, where numba compiles it if
it is installed.

`two_lists` is the article's telling, and leaves out the kernel's batches, PG_referenced, and the old statistics that
today's kernel decides on.  `linux` has them: the patches as posted, 3.15 and 6.18 are rows of its choices, and
`predictions` puts them beside recorded runs.  Both leave out mapped pages, readahead, dirty pages and zones.

>>> shift = traces.shift(850, 850)
>>> refault.replay(shift, 1000, "balanced-2012").faults
7650
>>> refault.replay(shift, 1000, "proposal-2012").faults
4447
"""

from typing import TYPE_CHECKING, Any

from kernelnotes.intrinsics import have_numba
from kernelnotes.refault.article import activate, activate_refault, demote, reclaim, two_lists
from kernelnotes.refault.choices import DETAILS, Choices, in_words
from kernelnotes.refault.generations import mglru
from kernelnotes.refault.kernel import linux
from kernelnotes.refault.lists import (
    ACTIVE,
    ANON,
    COLD,
    COUNTERS,
    HIT,
    INACTIVE,
    LENGTH,
    ON_ACTIVE,
    RESIDENT,
    UNMAPPED,
    State,
    evict,
    is_full,
    leave_shadow,
    look_up_shadow,
    oldest,
    push_newest,
    remove,
    take_oldest,
)
from kernelnotes.refault.memory import Event, Memory
from kernelnotes.refault.rules import RULES, Rules, rule_set
from kernelnotes.refault.yardsticks import arc, clock, fifo, lru, opt, s3fifo, sieve, two_queues

if TYPE_CHECKING:
    from kernelnotes.refault.claims import check_claim, counterexample, demotion_outcomes
    from kernelnotes.refault.predicting import ablation, predictions
    from kernelnotes.refault.recorded import against
    from kernelnotes.refault.replays import Clock, Measured, Replay, next_uses, replay
    from kernelnotes.refault.sweeps import sweep

__all__ = [
    "ACTIVE",
    "ANON",
    "COLD",
    "COUNTERS",
    "DETAILS",
    "HIT",
    "INACTIVE",
    "LENGTH",
    "ON_ACTIVE",
    "RESIDENT",
    "RULES",
    "UNMAPPED",
    "Choices",
    "Clock",
    "Event",
    "Measured",
    "Memory",
    "Replay",
    "Rules",
    "State",
    "ablation",
    "activate",
    "activate_refault",
    "against",
    "arc",
    "check_claim",
    "clock",
    "counterexample",
    "demote",
    "demotion_outcomes",
    "evict",
    "fifo",
    "have_numba",
    "in_words",
    "is_full",
    "leave_shadow",
    "linux",
    "look_up_shadow",
    "lru",
    "mglru",
    "next_uses",
    "oldest",
    "opt",
    "predictions",
    "push_newest",
    "reclaim",
    "remove",
    "replay",
    "rule_set",
    "s3fifo",
    "sieve",
    "sweep",
    "take_oldest",
    "two_lists",
    "two_queues",
]


def __getattr__(name: str) -> Any:
    # Whole traces need numpy and pandas; `Memory` does not, and runs where they are not installed.
    if name in ("Clock", "Measured", "Replay", "next_uses", "replay"):
        from kernelnotes.refault import replays

        return getattr(replays, name)
    if name in ("ablation", "predictions"):
        from kernelnotes.refault import predicting

        return getattr(predicting, name)
    if name == "sweep":
        from kernelnotes.refault import sweeps

        return sweeps.sweep
    if name == "against":
        from kernelnotes.refault import recorded

        return recorded.against
    if name in ("check_claim", "counterexample", "demotion_outcomes"):
        from kernelnotes.refault import claims

        return getattr(claims, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
