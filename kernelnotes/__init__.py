"""kernelnotes: three kernel mechanisms of May 2012, to run, measure and take apart.

    traces      page-access traces: generators
    refault     the active and the inactive list, shadow entries, refault distance; replay
    ctype       what a C declaration says, before any ABI has placed it
    cdecl       C source text -> record types
    abi         the ABIs, as data
    layout      offsets, holes, padding; comparison; bytes to values and back
    btf         the running kernel's own types, read from BTF bytes
    autofs      the packet, its readers, the kernel's fixes, and who is left hanging
    repair      a TCP connection at rest, and the calls that dump and restore it
    pipes       byte pipe and packet pipe as plain buffers
    provenance  live, recorded or model: carried by every result
    recordings  what a real kernel did, with kernel, command and date
    live        the only code that makes system calls (Linux)
    views       the only code that imports matplotlib or ipywidgets

Imports point one way: errors <- models <- live, models <- views; the command line and the book use all three.
"""

KERNEL = "v6.12"  # the tag that every "Source:" in a docstring refers to, unless it names another
__version__ = "0.1.0"
