"""A connection that goes from one process to another in a file: saved once, restored once.

    with hand_over(sock, "FILE") as snapshot:     it is in FILE, and has ended here without a packet
        ...                                       what the peer sends meanwhile is dropped, and sent again

    with claimed("FILE") as snapshot:             nobody else can have it now
        sock = restore(snapshot)                  FILE has become FILE.used; or is FILE again, if that failed

FILE disappears when the connection lives again, so that whoever handed it over can wait for that.  A copy of FILE on
another host is another file: that it is not restored there too is up to whoever copies it.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from kernelnotes.errors import BadInput
from kernelnotes.live import repair
from kernelnotes.live.signals import Signals
from kernelnotes.repair.files import MOST_BYTES
from kernelnotes.repair.snapshot import Address, Snapshot

Name = str | os.PathLike[str]


def save(snapshot: Snapshot, path: Name) -> None:
    """Write the snapshot into a new file that only its owner can read, whole or not at all.

    Raises BadInput if there is such a file already, or none can be made.
    """
    target = Path(path)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "wb") as file:
                file.write(snapshot.to_bytes())
                file.flush()
                os.fsync(file.fileno())
            os.link(part, target)  # unlike a rename, it does not replace what is there
        finally:
            part.unlink()
    except OSError as e:
        raise BadInput(f"{os.fspath(path)}: {e.strerror}") from e


def load(path: Name) -> Snapshot:
    """The snapshot in a file, which stays as it is.  Raises BadInput."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MOST_BYTES:
                raise BadInput(f"{os.fspath(path)}: {size} bytes, more than a snapshot can have ({MOST_BYTES})")
            return Snapshot.from_bytes(file.read(size))
    except OSError as e:
        raise BadInput(f"{os.fspath(path)}: {e.strerror}") from e
    except BadInput as e:
        raise BadInput(f"{os.fspath(path)}: {e}") from e


@contextlib.contextmanager
def hand_over(sock: socket.socket, path: Name, peer: Address | None = None) -> Iterator[Snapshot]:
    """Save the connection in a new file and end it here; in the block what the peer sends is dropped, not reset.

    `sock` is still to be closed; `peer` is as in `freeze`.  Raises what `freeze` and `save` raise, and CallFailed:
    then the connection goes on here and there is no file.
    """
    with contextlib.ExitStack() as stack:
        with repair.freeze(sock, peer) as frozen, Signals():  # from here on all of it or nothing
            snapshot = frozen.dump()
            save(snapshot, path)
            try:
                stack.enter_context(repair.guard(snapshot.local, snapshot.family, repair.beside(sock)))
                frozen.release()
            except BaseException:
                if not frozen.released:
                    Path(path).unlink()
                raise
        yield snapshot


@contextlib.contextmanager
def claimed(path: Name) -> Iterator[Snapshot]:
    """The snapshot in FILE, for this block alone, which is to restore it.

    In the block there is FILE.used as well; then only that is left, or only FILE where nothing was restored.  Of many
    that try at once one succeeds.  Raises BadInput for the others, and for a file that is not whole.
    """
    file, used = os.fspath(path), f"{os.fspath(path)}.used"
    try:
        os.link(file, used)
    except FileExistsError:
        raise BadInput(f"{file}: was used already, there is {used}") from None
    except OSError as e:
        raise BadInput(f"{file}: {e.strerror}; a snapshot is used once, was it used already?") from e
    snapshot = None
    try:
        snapshot = load(used)
        yield snapshot
    finally:
        os.unlink(file if snapshot and repair.was_restored(snapshot) else used)
