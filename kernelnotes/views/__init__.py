"""What the book shows, and the only code that imports matplotlib or ipywidgets; every output says where it comes from.

`explorer` gives a picture controls; `show` puts a figure, `table` a DataFrame, `note` a text, `listing` what a program
printed, `source` a function's own code and `timeline` a history into a page; `figure`, `style` and `PALETTE` make
pictures that belong together.

>>> frame = refault.sweep("ABCABC", [2, 3], ["lru"])[["memory", "faults"]]
>>> print(views.table(frame, "A loop of three pages", index=False))
[table, model] A loop of three pages
 memory  faults
      2       6
      3       3
"""

from kernelnotes.views.explorer import Explorer, Frame, explorer, play
from kernelnotes.views.output import Output, listing, mark, note, show, source, table
from kernelnotes.views.style import GREY, INK, PALETTE, RULE, STRONG, figure, style
from kernelnotes.views.timeline import timeline

__all__ = [
    "GREY",
    "INK",
    "PALETTE",
    "RULE",
    "STRONG",
    "Explorer",
    "Frame",
    "Output",
    "explorer",
    "figure",
    "listing",
    "mark",
    "note",
    "play",
    "show",
    "source",
    "style",
    "table",
    "timeline",
]
