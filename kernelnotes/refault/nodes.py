"""Which nodes of an xarray hold a file's pages: they take memory, and a cgroup is charged for them.

A node has 64 slots.  Those of the lowest level hold pages and shadow entries, those above hold nodes; the tree is as
high as the highest index so far needs.

Left out: a file of one page, which needs no node; nodes of higher levels are never freed; a trace is one file.

Source: lib/xarray.c xas_create(), xas_expand(), v6.18.
"""

from __future__ import annotations

from collections.abc import Hashable

CHUNK_SHIFT = 6  # XA_CHUNK_SHIFT, include/linux/xarray.h


class Nodes:
    """The nodes of the lowest level, numbered from 1 up in the order in which they come into being."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._above: list[set[int]] = []  # per level, the nodes that there are
        self.parents = [0]  # per number, how many nodes of higher levels come into being with it

    def number(self, index: int) -> int:
        """The node of the page at `index`, which comes into being if it is new."""
        leaf = index >> CHUNK_SHIFT
        if leaf not in self._numbers:
            self.parents.append(self._grow(leaf))
            self._numbers[leaf] = len(self._numbers) + 1
        return self._numbers[leaf]

    def _grow(self, leaf: int) -> int:
        before = sum(map(len, self._above))
        while leaf >> CHUNK_SHIFT * len(self._above) > 0:
            self._above.append({0} if self._numbers else set())  # what there is goes below the new top
        for level, nodes in enumerate(self._above, 1):
            nodes.add(leaf >> CHUNK_SHIFT * level)
        return sum(map(len, self._above)) - before


def index_of(label: Hashable, number: int) -> int:
    """A page's index in its file: its name if that is a number, else the order of its appearance."""
    return number if isinstance(label, str) else int(label)  # type: ignore[call-overload]
