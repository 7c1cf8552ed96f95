"""What the book's own pages compute in the reader's browser: text in, HTML or an error out.

The functions here run there as they are, with nothing but Python's own library and the parsers of C; so they import
none of the heavy packages, and give plain dicts that become JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from kernelnotes import abi, cdecl, refault
from kernelnotes.ctype import Record
from kernelnotes.errors import BadInput
from kernelnotes.layout import Layout, bytemap
from kernelnotes.layout import layout as lay_out
from kernelnotes.layout.hazards import Hazard, compared, pairs

MOST_RECORDS = 40
MOST_ACCESSES = 400
MOST_MEMORY = 1000  # pages
MOST_SOURCE = 200_000  # characters
_PLACE = re.compile(r"(?:<source>|your text):(\d+):(\d+): (.*)", re.DOTALL)


def struct(source: str, abis: Sequence[str]) -> dict[str, Any]:
    """Maps of all records of `source` under each of `abis`, and the hazards between the first of them and the others.

    {"html": ...}, or {"error": what, "line": from 1 up or 0 where it is unknown, "column": the same}.
    """
    try:
        chosen = [abi.find(name) for name in abis]
        if not chosen:
            raise BadInput("no ABI is chosen, expected at least one")
        if len(source) > MOST_SOURCE:
            raise BadInput(f"the text has {len(source):,} characters, expected at most {MOST_SOURCE:,}")
        records = cdecl.parse(source)
        if not records:
            raise BadInput("there is no struct or union with members in the text")
        if len(records) > MOST_RECORDS:
            raise BadInput(f"there are {len(records)} records, expected at most {MOST_RECORDS}")
    except BadInput as e:
        return _error(e)
    parts = [f"<style>{bytemap.CSS}</style>", _hazards(records, chosen)]
    for name, record in records.items():
        maps = "".join(f"<div>{_map(record, one)}</div>" for one in chosen)
        parts.append(f'<h2>{escape(name)}</h2><div class="kn-maps">{maps}</div>')
    return {"html": "".join(parts)}


def _error(e: BadInput) -> dict[str, Any]:
    found = _PLACE.match(str(e))
    line, column, what = (int(found[1]), int(found[2]), found[3]) if found else (0, 0, str(e))
    return {"error": what, "line": line, "column": column}


def _map(record: Record, one: abi.Abi) -> str:
    try:
        made: Layout = lay_out(record, one)
        return bytemap.table(made)
    except BadInput as e:
        return f"<p><b>{escape(one.name)}</b>: {escape(str(e))}</p>"


def _hazards(records: dict[str, Record], chosen: Sequence[abi.Abi]) -> str:
    first, *others = chosen
    if not others:
        return ""
    rows = [
        (f"{first.name} and {other.name}", hazard)
        for other in others
        for hazard in compared(pairs(records, None), first, other)
    ]
    if not rows:
        return f"<p>No hazard: {escape(first.name)} and {_names(others)} place every member alike.</p>"
    heads = ("record", "between", "kind", "bytes", "members that move", "a mend")
    return _table(
        "Hazards", "Hazards", heads, [("", map(_words, _hazard(between, hazard))) for between, hazard in rows]
    )


def _hazard(between: str, h: Hazard) -> tuple[str, ...]:
    return (h.record, between, h.kind, f"{h.sizes[0]} and {h.sizes[1]}", ", ".join(h.members) or "-", h.mend or "-")


def _names(abis: Iterable[abi.Abi]) -> str:
    return escape(", ".join(one.name for one in abis))


def _table(name: str, caption: str, heads: Iterable[str], rows: Iterable[tuple[str, Iterable[str]]]) -> str:
    """Of rows, each with its class, and cells that are HTML; a wide one scrolls by keyboard, too."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in heads)
    body = "".join(f'<tr class="{css}">' + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for css, row in rows)
    return (
        f'<div class="kn-wide-table" tabindex="0" role="region" aria-label="{name}"><table class="kn-{name.lower()}">'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _words(cell: str) -> str:
    return re.sub("`([^`]*)`", r"<code>\1</code>", escape(cell))


def steps(accesses: str, memory: int, rules: str) -> dict[str, Any]:
    """A row per access: what it did, and both lists after it; then the counts.

    accesses : pages, separated by spaces or commas; without any, each character is a page
    {"html": ...}, or {"error": ..., "line": 0, "column": 0}.
    """
    words = [word for word in re.split(r"[\s,]+", accesses) if word]
    pages = list(words[0]) if len(words) == 1 and not re.search(r"[\s,]", accesses.strip()) else words
    try:
        if not 1 <= len(pages) <= MOST_ACCESSES:
            raise BadInput(f"there are {len(pages)} accesses, expected 1 to {MOST_ACCESSES}")
        if isinstance(memory, int) and memory > MOST_MEMORY:
            raise BadInput(f"memory is {memory} pages, expected at most {MOST_MEMORY}")
        m = refault.Memory(memory, rules, trace=pages if rules == "opt" else None)
        rows = []
        for number, page in enumerate(pages, 1):
            event = m.access(page)
            lists = (" ".join(map(str, m.inactive)) or "-", " ".join(map(str, m.active)) or "-")
            kind = "hit" if event.hit else "refault" if event.refault else "cold"
            cells = (str(number), page, event.what, *lists, str(m.workingset_time))
            rows.append((f"kn-{kind}", map(escape, cells)))
    except BadInput as e:
        return _error(e)
    except MemoryError as e:
        return {"error": f"memory is {memory} pages, too few here: {e}", "line": 0, "column": 0}
    counts = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in m.counts.items() if value)
    heads = ("", "page", "what happens", "inactive, newest first", "active, newest first", "clock")
    table = _table("Steps", f"{rules}, memory of {memory} pages", heads, rows)
    return {"html": f'{table}<p class="kn-counts">In all: {escape(counts)}.</p>'}
