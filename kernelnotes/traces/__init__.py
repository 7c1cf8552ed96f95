"""Page-access traces: which page of memory a program touched, in order.

A trace is the input of every model here.  Time in it is counted in accesses; a page is a number from 0 up in order
of first appearance, and `labels` keeps what it was called outside.

    cyclic, zipf, uniform, scan_over_hot, shift, mix    shapes to order, seeded
    read(path), open(path)                              files of other tools, whole or in chunks, see `formats`
    write(trace, path)                                  for other tools

Left out on purpose: when an access happened, whether it wrote, how many bytes of the page it touched.

>>> traces.Trace.of("ABCAAC").labels.tolist()
['A', 'B', 'C']
>>> traces.Trace.of("ABCAAC").pages.tolist()
[0, 1, 2, 0, 0, 2]
"""

from kernelnotes.traces.chunks import Chunks, as_chunks
from kernelnotes.traces.files import FORMATS, open, read, write
from kernelnotes.traces.shapes import cyclic, mix, scan_over_hot, shift, uniform, zipf
from kernelnotes.traces.trace import EXECUTABLE, MAPPED, MOST_PAGES, READ, Trace, TraceLike, as_trace

__all__ = [
    "EXECUTABLE",
    "FORMATS",
    "MAPPED",
    "MOST_PAGES",
    "READ",
    "Chunks",
    "Trace",
    "TraceLike",
    "as_chunks",
    "as_trace",
    "cyclic",
    "mix",
    "open",
    "read",
    "scan_over_hot",
    "shift",
    "uniform",
    "write",
    "zipf",
]
