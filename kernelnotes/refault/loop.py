"""The loop over a trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from kernelnotes.intrinsics import AHEAD, prefetch
from kernelnotes.refault import article, generations, kernel, lists, yardsticks
from kernelnotes.refault.choices import Choices
from kernelnotes.refault.lists import State

Step: TypeAlias = "Callable[[State, Choices, int], int]"


def run(step: Step, m: State, rules: Choices, pages: Any, start: int, stop: int, distances: Any) -> None:
    """Accesses start to stop - 1 of `pages`; `distances` has one place for each access of `pages`, or none at all."""
    keep = len(distances) > 0
    for i in range(start, stop):
        if i + AHEAD < len(pages):
            prefetch(m.word, pages[i + AHEAD])
        distance = step(m, rules, pages[i])
        if keep:
            distances[i] = distance


BUILT_IN = (
    *(article.two_lists, article.fixed_lists, kernel.linux, generations.mglru),
    *(yardsticks.fifo, yardsticks.lru, yardsticks.clock, yardsticks.sieve),
    *(yardsticks.two_queues, yardsticks.arc, yardsticks.s3fifo, yardsticks.opt),
)
OPERATIONS = (
    *lists.OPERATIONS,
    *article.OPERATIONS,
    *yardsticks.OPERATIONS,
    *kernel.OPERATIONS,
    *generations.OPERATIONS,
)
