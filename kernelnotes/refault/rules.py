"""The rule sets by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Integral
from types import MappingProxyType
from typing import Any

from kernelnotes.errors import BadInput
from kernelnotes.refault.article import two_lists
from kernelnotes.refault.choices import DETAILS, Choices
from kernelnotes.refault.generations import mglru
from kernelnotes.refault.kernel import BATCH, linux
from kernelnotes.refault.lists import ACTIVE, INACTIVE, LENGTH, State
from kernelnotes.refault.loop import Step
from kernelnotes.refault.yardsticks import arc, clock, fifo, lru, opt, s3fifo, sieve, two_queues

_DEFAULT = Choices()


@dataclass(frozen=True)
class Rules:
    """A rule set: how one access is handled.

    step : a function (m: State, rules: Choices, page: int) -> HIT, COLD or R, made of the operations in this module
    choices : what the step function looks up
    source : where the rules stand

    >>> refault.RULES["balanced-2012"].but("nine to one", ratio=9).choices.ratio
    9
    """

    name: str
    step: Step
    choices: Choices = _DEFAULT
    source: str = ""

    def __post_init__(self) -> None:
        """Refuse a choice out of range: reclaim would wait for ever for an inactive share above 100 percent."""
        if not callable(self.step) or not isinstance(self.choices, Choices):
            raise BadInput(
                f"rules {self.name!r}: expected a step function and Choices, got {self.step!r}, {self.choices!r}"
            )
        for choice, value in self.choices._asdict().items():
            least, most = _RANGES.get(choice, (0, 1))
            if not is_integer(value) or not least <= value <= most:
                raise BadInput(
                    f"rules {self.name!r}: {choice} is {value!r}, expected an integer from {least} to {most}"
                )

    def but(self, name: str, **choices: int) -> Rules:
        """The same rules under another name, some choices made differently.

        Raises BadInput for an unknown choice, and for one that is out of range.
        """
        unknown = set(choices) - set(Choices._fields)
        if unknown:
            raise BadInput(f"rules: unknown choice {min(unknown)!r}, expected one of {', '.join(Choices._fields)}")
        return replace(self, name=name, choices=self.choices._replace(**choices))

    def without(self, detail: str) -> Rules:
        """The same rules with one detail left out, one of DETAILS; for `linux`, to see what it is worth.

        Raises BadInput for a name that is none, and for a detail that these rules do not have.
        """
        if not isinstance(detail, str) or detail not in DETAILS:
            raise BadInput(f"rules: unknown detail {detail!r}, expected one of {', '.join(DETAILS)}")
        changed = self.choices._replace(**DETAILS[detail])
        if self.step is not linux or changed == self.choices:
            raise BadInput(f"rules {self.name!r}: there is no {detail!r} to leave out")
        return replace(self, name=f"{self.name} without {detail}", choices=changed)


MOST_MEMORY = 2**24  # pages, 64 GiB: twice as many slots just fit into a word beside the flags
_RANGES = {"inactive_share": (0, 100), "active_pages": (0, MOST_MEMORY), "batch": (1, BATCH), "ratio": (0, 1000)} | {
    "ghosts": (0, 1000)
}


def is_integer(value: Any) -> bool:
    """Whether `value` is an int, or an integer of numpy; True and False are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


_TODAY = Choices(
    entry_after_tick=0,
    refault_activates=1,
    refaults_deactivate=1,
    reclaim_ticks=1,
    ratio=0,
    second_reference=1,
    repeats_collapse=1,
    batch=BATCH,
    scan_by_priority=1,
    stale_statistics=1,
    charged_nodes=1,
    shrink_nodes=1,
)
_AFTER = Choices(entry_after_tick=0)
_ARTICLE = "the article of 2 May 2012; before it, mm/vmscan.c, inactive_file_is_low_global(), v3.3"
RULES: Mapping[str, Rules] = MappingProxyType(
    {
        rules.name: rules
        for rules in (
            Rules("balanced-2012", two_lists, Choices(), _ARTICLE),
            Rules(
                "proposal-2012",
                two_lists,
                Choices(refault_demotes=1),
                "the article of 2 May 2012, on the patches of 1 May",
            ),
            Rules(
                "proposal-2012-patch",
                linux,
                Choices(refault_demotes=1, ratio=0, second_reference=1),
                "patch 5/5 of 1 May 2012 as posted, <1335861713-4573-6-git-send-email-hannes@cmpxchg.org>",
            ),
            Rules(
                "linux-3.15",
                linux,
                Choices(refault_activates=1, second_reference=1),
                "mm/workingset.c and mm/filemap.c, commit a528910e12ec, v3.15",
            ),
            Rules("linux-6.18", linux, _TODAY, "mm/workingset.c, swap.c, vmscan.c, shrinker.c and memcontrol.c, v6.18"),
            Rules("mglru-simplified", mglru, _AFTER, "mm/vmscan.c, swap.c and workingset.c, v6.18, CONFIG_LRU_GEN"),
            Rules("fifo", fifo, _AFTER, "a yardstick: the inactive list alone"),
            Rules("lru", lru, _AFTER, "a yardstick: least recently used"),
            Rules("clock", clock, _AFTER, "a yardstick: Corbato, MIT Project MAC, MAC-M-384, 1968"),
            Rules(
                "2q",
                two_queues,
                _AFTER._replace(inactive_share=25, ghosts=50),
                "a yardstick: Johnson and Shasha, VLDB 1994",
            ),
            Rules("arc", arc, _AFTER._replace(ghosts=200), "a yardstick: Megiddo and Modha, FAST 2003"),
            Rules(
                "s3fifo",
                s3fifo,
                _AFTER._replace(inactive_share=10, ghosts=90),
                "a yardstick: Yang, Zhang, Qiu, Yue and Rashmi, SOSP 2023",
            ),
            Rules("sieve", sieve, _AFTER, "a yardstick: Zhang, Yang, Yue, Vigfusson and Rashmi, NSDI 2024"),
            Rules("opt", opt, _AFTER, "a yardstick: Belady, IBM Systems Journal 5(2), 1966"),
        )
    }
)


def running_kernel(m: State, rules: Choices, page: int) -> int:
    """In place of the step function of what was measured, see Measured: nothing here can run it."""
    raise NotImplementedError


def rule_set(rules: str | Rules) -> Rules:
    """The rule set of that name; raises BadInput, which lists the known names."""
    if isinstance(rules, Rules):
        if rules.step is running_kernel:
            raise BadInput(f"{rules.name}: the rules of a running kernel can be measured, not replayed")
        return rules
    if not isinstance(rules, str) or rules not in RULES:
        raise BadInput(f"unknown rules {rules!r}, expected one of {', '.join(RULES)}")
    return RULES[rules]


def check_memory(memory: Any, accesses: int | None = None) -> int:
    """`memory` as a number of pages; raises BadInput unless it is an integer from 1 to the number of accesses."""
    if not is_integer(memory):
        raise BadInput(f"memory is {memory!r}, expected a whole number of pages")
    pages = int(memory)
    if not 1 <= pages <= MOST_MEMORY:
        raise BadInput(f"memory is {pages} pages, expected 1 to {MOST_MEMORY}")
    if accesses is not None and pages > accesses:
        raise BadInput(
            f"memory is {pages} pages, larger than the whole trace of {accesses} accesses: nothing can be evicted"
        )
    return pages


def slots_for(memory: int) -> int:
    """Slots of a ring for a list of at most `memory` pages: a power of two, so that at least half of them are free."""
    return 1 << (2 * memory - 1).bit_length()


def check_lengths(m: State, rules: Rules) -> None:
    """Refuse to go on with more pages in memory than fit: a step function forgot to evict.  Raises BadInput."""
    held, fit = m.n[LENGTH + INACTIVE] + m.n[LENGTH + ACTIVE], m.memory + rules.choices.active_pages
    if held > fit:
        raise BadInput(
            f"rules {rules.name!r}: {held} pages are in a memory of {fit}, expected the step function to evict"
        )
