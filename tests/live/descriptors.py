"""The open file descriptors of this process, for the tests that nothing is left of what they make."""

import gc
import os


def descriptors():
    """Their numbers.

    What earlier tests made is collected first: it is not to vanish while a test counts.  To be called before that test
    makes anything; `present` afterwards.
    """
    gc.collect()
    return present()


def present():
    """The same as it is: what is closed only when it is collected counts as left behind."""
    return sorted(os.listdir("/proc/self/fd"))
