"""autofs: the packet that 32-bit and 64-bit machines disagree about, who reads it, and what each fix broke.

header   what kernel and daemon agreed on, as C: records and ioctl numbers under any ABI
packets  bytes of the pipe to packets and back
matrix   readers, kernels, and what becomes of the processes that ask

>>> outcome = autofs.play(autofs.KERNELS["no fix"], autofs.READERS["systemd"], autofs.MODES["32-on-64"])
>>> outcome.verdict
'garbage'
"""

from kernelnotes.autofs.header import IOCTLS, records
from kernelnotes.autofs.matrix import (
    KERNELS,
    MODES,
    READERS,
    SCHEDULES,
    Event,
    Host,
    Kernel,
    Mode,
    Outcome,
    Reader,
    Task,
    outcomes,
    play,
)
from kernelnotes.autofs.packets import PACKETS, UNKNOWN, Packet, decode, decode_stream, encode, make

__all__ = [
    "IOCTLS",
    "KERNELS",
    "MODES",
    "PACKETS",
    "READERS",
    "SCHEDULES",
    "UNKNOWN",
    "Event",
    "Host",
    "Kernel",
    "Mode",
    "Outcome",
    "Packet",
    "Reader",
    "Task",
    "decode",
    "decode_stream",
    "encode",
    "make",
    "outcomes",
    "play",
    "records",
]
