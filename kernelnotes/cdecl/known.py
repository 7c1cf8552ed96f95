"""What has been read before, kept by `cdecl.parse` from one source to the next.

The headers of a tree include each other over and over: of the kernel's user-space headers the average one brings in
335 declarations, and 94 % of them were read before.  So each step keeps what it found, with all that it depended on.
Nothing here is ever wrong, only unused: a step looks first whether what it depended on is the same again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kernelnotes.cdecl.preprocess import Expansions
from kernelnotes.cdecl.scope import Readings
from kernelnotes.cdecl.source import Stretches


@dataclass(slots=True)
class Known:
    """The files expanded, the stretches of text cut into declarations, the declarations read.

    Good for as long as the files do not change.  One process's own: give each process another.
    """

    expansions: Expansions = field(default_factory=dict)
    stretches: Stretches = field(default_factory=dict)
    readings: Readings = field(default_factory=dict)
