"""Problems without end: each seed gives one, with its answer worked out by the models of this package.

A problem is made of what it asks, the steps to the answer, and the answer; `sheets` prints them.  Nothing is answered
by rules of its own: the models that the tests compare with kernels and compilers do it.

>>> problem = quiz.problem("refault", seed=1)
>>> problem.kind, problem.answer
('verdict', 'R = 2; 2 pages; it puts the page on the active list at once.')
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from kernelnotes.errors import BadInput


class Table(NamedTuple):
    """A table: its heads, and rows of as many cells."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Code(NamedTuple):
    """Lines that stand as they are."""

    text: str


Block: TypeAlias = "str | Table | Code"  # a str is a paragraph; `code` in it stands between backquotes


@dataclass(frozen=True)
class Problem:
    """One problem.

    topic, kind : of TOPICS, and which of that topic's kinds
    seed : makes it again
    title : in a few words
    question : blocks to read; the last one asks
    steps : blocks that lead to the answer
    answer : in one paragraph
    """

    topic: str
    kind: str
    seed: int
    title: str
    question: tuple[Block, ...]
    steps: tuple[Block, ...]
    answer: str


class Draft(NamedTuple):
    """What a kind of problem makes; the fields of Problem."""

    title: str
    question: tuple[Block, ...]
    steps: tuple[Block, ...]
    answer: str


Kind: TypeAlias = Callable[[random.Random], Draft]
MOST_SEEDS = 2**63 - 1
MOST_ON_A_SHEET = 200


TOPICS = ("refault", "layout", "repair")


def kinds(topic: str) -> tuple[str, ...]:
    """The names of a topic's kinds of problems.  Raises BadInput for an unknown topic."""
    return tuple(kind.__name__ for kind in _kinds(topic))


def problem(topic: str, seed: int, kind: str = "") -> Problem:
    """The problem that `seed` gives, of a kind that it chooses if none is named.

    Raises BadInput for an unknown topic or kind, and for a seed that is no integer from 0 to 2**63 - 1.
    """
    known = {each.__name__: each for each in _kinds(topic)}
    _check("seed", seed, 0, MOST_SEEDS)
    rng = random.Random(f"{topic} {seed}")  # of a string: the same in every process and on every machine
    chosen = rng.choice(tuple(known))
    if kind and kind not in known:
        raise BadInput(f"kind is {kind!r}, expected one of {', '.join(known)}")
    made = known[kind or chosen](rng)
    return Problem(topic, kind or chosen, seed, *made)


def problems(topic: str, seed: int, count: int) -> list[Problem]:
    """`count` problems for one sheet, of the seeds from `seed` on, every kind in turn.  Raises as `problem`."""
    _check("sheet", count, 1, MOST_ON_A_SHEET)
    _check("seed", seed, 0, MOST_SEEDS - count)
    names = kinds(topic)
    made: list[Problem] = []
    for each in range(seed, seed + count):
        found = problem(topic, each, names[each % len(names)])
        if any(found.question == other.question for other in made):  # there are few recordings to ask about
            found = problem(topic, each, names[(each + 1) % len(names)])
        made.append(found)
    return made


def _kinds(topic: str) -> tuple[Kind, ...]:
    if topic not in TOPICS:
        raise BadInput(f"topic is {topic!r}, expected one of {', '.join(TOPICS)}")
    found: tuple[Kind, ...] = importlib.import_module(f"{__name__}.{topic}").KINDS
    return found


def _check(what: str, value: int, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise BadInput(f"{what} is {value!r}, expected an integer from {least} to {most}")
