"""Every exception that kernelnotes raises on purpose: each says who must act.

>>> refault.replay("ABC", 0, "lru")
Traceback (most recent call last):
    ...
kernelnotes.errors.BadInput: memory is 0 pages, expected 1 to 16777216
"""


class KernelNotesError(Exception):
    """Base of what kernelnotes raises on purpose."""


class BadInput(KernelNotesError, ValueError):
    """An argument or a file is not what it must be; the message names it, what was found and what was expected."""


class Unavailable(KernelNotesError):
    """The machine cannot do it; the message names what is missing, e.g. CAP_NET_ADMIN, and how to get it."""


class CallFailed(KernelNotesError, OSError):
    """The kernel refused one step; `errno` is the kernel's, the message starts with the step."""
