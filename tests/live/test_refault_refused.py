"""The recorder where it may not record: these tests need no ability, only an ordinary user, or root to become one."""

import os

from kernelnotes.errors import Unavailable
from kernelnotes.live import refault


def test_who_is_not_root_is_told_so():
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            if not os.geteuid():
                os.setuid(65534)
            refault.record(["true"], 2000, progress=False)
        except Unavailable as e:
            os.write(writer, str(e).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with open(reader) as said:
        assert "run as root" in said.read()
