"""A small automounter: the kernel's autofs on one side, a Python function on the other.

    def lookup(name):                       "src" -> the folder to show there; None: there is no such name
        return {"src": "/usr/src", "scratch": TMPFS}.get(name)

    def lookup(name, requester):            the same, told who asks: requester.uid, requester.gid, requester.pid
        return f"/home/{requester.uid}"

    with Automount("/mnt/auto", lookup, timeout=5) as served:
        subprocess.run(["ls", "/mnt/auto/src"], process_group=0)
    print(served.log)

The daemon mounts autofs on a folder and hands the kernel the write end of a pipe.  From then on:

    a process looks up /mnt/auto/src        it waits in the kernel, in state D
    kernel -> pipe                          a packet: missing, name, token, and who asked
    daemon                                  makes the folder, mounts something on it
    daemon -> ioctl READY or FAIL (token)   the process goes on and finds the mount, or gets ENOENT
    daemon -> ioctl EXPIRE_MULTI            "is anything idle?"; if so the kernel sends a packet, expire, and this call
                                            waits until the packet is answered: hence a thread of its own
    daemon -> ioctl CATATONIC               no more requests: whoever waits, now or later, gets ENOENT

An indirect mount makes folders below itself, one for each name that somebody asks for.  A direct mount is the folder
itself: the daemon mounts over it, and the name in its packets is of no use (a number; here it is the path).

Things that surprise:

    Who belongs to the daemon's process group never triggers anything, and sees only what is there already: otherwise
    the daemon would wait for itself.  A program started from a notebook or a script is in that group, unless it is
    given one of its own (`process_group=0` as above, or setsid(1)).
    Only files that are open for reading keep the pipe alive.  A child that inherits the read end (os.fork) keeps
    requesters waiting for a daemon that died; what `subprocess` starts does not inherit it.
    Who is outside of the daemon's pid namespace gets ENOENT and never reaches the daemon.  No daemon of another pid
    namespace can take the mount over.
    A name of 254 or 255 bytes gets ENOENT and never reaches the daemon: the kernel needs room for a slash.
    A daemon that is killed leaves its mount, and who waited for it waits on, until the next daemon takes over (start
    one on the same folder), or somebody else looks up a name and finds the pipe broken: everybody gets ENOENT then,
    but that process dies of SIGPIPE unless it ignores it.  `umount -R FOLDER` removes such a mount.
    That somebody may have been on its way to the old pipe when the next daemon took over.  The kernel then stops the
    requests to the new one, with ENOENT, until that notices (here within 0.2 s) and hands its pipe over again.

Left out: maps other than a function, several mounts for one name, offset mounts, waiting for a slow file system while
others are served (requests are answered one after the other), shared subtrees, and a 32-bit Python on a 64-bit kernel.

Source: fs/autofs/root.c, waitq.c, expire.c, inode.c, dev-ioctl.c; Documentation/filesystems/autofs.rst and
autofs-mount-control.rst.  The last two are imprecise where they say that only OPENMOUNT helps after a crash, and that
a matching uid may make folders in a catatonic mount.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import inspect
import os
import select
import shlex
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

from kernelnotes import autofs
from kernelnotes.abi import find
from kernelnotes.autofs.header import placed
from kernelnotes.autofs.log import Event, Log
from kernelnotes.errors import BadInput, CallFailed, Unavailable
from kernelnotes.live import machine, mounts, pipes
from kernelnotes.live.btf import ABIS
from kernelnotes.live.origin import provenance
from kernelnotes.live.signals import Signals

SOURCE = "kernelnotes"  # what our mounts call themselves in /proc/self/mountinfo
TMPFS = "tmpfs"  # what a lookup returns for an empty file system of its own
DEVICE = "/dev/autofs"
DETACHED = "it is in use: detached"
LOOK_MS = 200  # how often a daemon that took over and hears nothing looks whether it is connected
LONGEST_NAME = 253  # bytes
LONGEST_TIMEOUT_S = (1 << 31) - 1
MOST_MAP_BYTES = 1 << 20

Source = str | os.PathLike[str] | None


class Requester(NamedTuple):
    """Who looked a name up first, as the kernel says: the ids of its user and group, and of its process.

    `pid` is the packet's `tgid` (what the packet calls `pid` is the thread), as it is seen from the daemon's pid
    namespace; who is not to be seen from there gets ENOENT without being asked about.  The process may have ended.
    """

    uid: int
    gid: int
    pid: int


Lookup = Callable[[str], Source] | Callable[[str, Requester], Source]


def unfix(fd: int) -> None:
    """Clear O_DIRECT on the pipe of a live mount: the running kernel then writes as it did before May 2012.

    `fd` is the write end that the mount was made with, `Automount.pipe`; of another daemon's, `pipes.borrow` gets it.
    A reader that takes the packet for 4 bytes shorter than it is loses step at the second one.  `pipes.set_packet(fd,
    True)` mends it.  Raises BadInput for anything but the write end of a pipe.
    Source: fs/autofs/autofs_i.h, autofs_set_packet_pipe_flags().
    """
    pipes.set_packet(fd, False)


def control(call: str, root: int = -1, *, path: str = "", **argument: Any) -> dict[str, Any]:
    """One call of /dev/autofs: `control("VERSION")`, `control("FAIL", root, fail={"token": 3, "status": -2})`.

    `root` is a file descriptor of the root of a mount; `argument` is one reading of the union in `struct
    autofs_dev_ioctl`.  Returns that struct as the kernel leaves it, with each reading of the union.  Unlike a packet it
    says which version it is and how long.  VERSION and ISMOUNTPOINT are for everybody, the rest for root.

    Raises BadInput for an unknown call, Unavailable without /dev/autofs, CallFailed where the kernel refuses.
    Source: include/uapi/linux/auto_dev-ioctl.h; fs/autofs/dev-ioctl.c, _autofs_dev_ioctl().
    """
    if f"AUTOFS_DEV_IOCTL_{call}" not in autofs.IOCTLS:
        known = [name.removeprefix("AUTOFS_DEV_IOCTL_") for name, c in autofs.IOCTLS.items() if c.device]
        raise BadInput(f"/dev/autofs has no call {call!r}, expected one of: {', '.join(known)}")
    abi = _abi_of_the_kernel()
    layout = placed("struct autofs_dev_ioctl", find(abi))
    tail = os.fsencode(path) + b"\0" if path else b""
    head = {"ver_major": 1, "ver_minor": 0, "size": layout.size + len(tail), "ioctlfd": root, "path": []}
    data = bytearray(layout.pack(head | (argument or {"expire": {"how": 0}})) + tail)
    with _device() as device:
        try:
            fcntl.ioctl(device, autofs.IOCTLS[f"AUTOFS_DEV_IOCTL_{call}"].number(abi), data, True)
        except OSError as e:
            raise CallFailed(e.errno, f"{DEVICE} {call}: {e.strerror}") from e
    return layout.unpack(bytes(data[: layout.size]))


def read_map(path: str | os.PathLike[str]) -> dict[str, str]:
    """A map file: {name: source}.

    Each line is a name, blanks, and the source: an absolute path, or `tmpfs`.  What begins with # is a comment, and
    empty lines are allowed.  A name has no blank and no slash, the source is the rest of the line.

    Raises BadInput, naming file and line, for everything else.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_MAP_BYTES + 1)
    except OSError as e:
        raise BadInput(f"{os.fspath(path)}: {e.strerror}") from e
    if len(data) > MOST_MAP_BYTES:
        raise BadInput(f"{os.fspath(path)}: longer than {MOST_MAP_BYTES >> 20} MiB, is it a map file?")
    found: dict[str, str] = {}
    for number, line in enumerate(os.fsdecode(data).split("\n"), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            name, source = _map_line(line, f"{os.fspath(path)}:{number}")
            if name in found:
                raise BadInput(f"{os.fspath(path)}:{number}: {name!r} stands here a second time")
            found[name] = source
    return found


def _map_line(line: str, where: str) -> tuple[str, str]:
    name, *rest = line.split(None, 1)
    source = rest[0].strip() if rest else ""
    if "/" in name or "\0" in line or name in (".", "..") or len(os.fsencode(name)) > LONGEST_NAME:
        raise BadInput(f"{where}: {name!r} is no name of at most {LONGEST_NAME} bytes without slash")
    if source != TMPFS and not source.startswith("/"):
        raise BadInput(f"{where}: {name!r} has the source {source!r}, expected an absolute path or {TMPFS}")
    return name, source


class Automount:
    """An automounter on the folder `path`, for as long as the `with` block lasts.

    `lookup(name)` says what to mount: the absolute path of a folder (a bind mount of it), `TMPFS`, or None for ENOENT.
    For a direct mount the name is `path`.  A lookup that needs a second argument, `lookup(name, requester)`, is told
    who asks; one that can do without is given the name alone.  What is mounted is there for everybody, whoever asked
    first.  An exception in it is ENOENT too, and stands in the log.  It is called in a thread of its own, one request
    at a time; the block ends no sooner than a call that is under way.

    What nobody has used for `timeout` seconds (whole ones, 0: never) is unmounted.  Events are in `log`, or come as
    they happen from `follow()`.  `pipe` is the write end of the pipe, for `unfix`.

    If an autofs is mounted on `path` already, and the daemon that it belonged to is dead, the new one takes it over.
    In the end everything is unmounted, on an exception, Ctrl-C, SIGTERM and SIGHUP too (they raise KeyboardInterrupt or
    SystemExit in the block, if it runs in the main thread); what is still in use is detached.

    Raises BadInput for a `path` that is no folder or is served already and for a `lookup` of other arguments,
    Unavailable where this machine cannot do it, and CallFailed where the kernel refuses.
    """

    def __init__(
        self, path: str | os.PathLike[str], lookup: Lookup, timeout: int = 60, *, direct: bool = False
    ) -> None:
        if not isinstance(timeout, int) or isinstance(timeout, bool) or not 0 <= timeout <= LONGEST_TIMEOUT_S:
            raise BadInput(f"autofs: timeout is {timeout!r}, expected whole seconds from 0 to {LONGEST_TIMEOUT_S}")
        if not os.path.isdir(path):
            raise BadInput(f"autofs: {os.fspath(path)} is no folder")
        self.path = os.path.realpath(path)
        if os.path.samefile(self.path, "/"):
            raise BadInput("autofs: the root folder cannot be served: what is mounted on it is never reached")
        self.pipe = -1
        self._ask, self._timeout, self._direct = _of_two(lookup), timeout, direct
        self._kind = "direct" if direct else "indirect"
        self._abi = _abi_of_the_kernel()
        self._events: list[Event] = []
        self._news = threading.Condition()
        self._closed = False
        self._bug: BaseException | None = None  # what ended one of the threads
        self._took_over = False
        self._connecting, self._over = threading.Lock(), False  # once it is over, nobody connects again

    # ------------------------------------------------------------------------------------ beginning and end

    def __enter__(self) -> Automount:
        """Mount, or take over, and begin to serve."""
        self._undo, self._began = contextlib.ExitStack(), time.monotonic()
        try:
            signals = self._undo.enter_context(Signals(self.__exit__))
            self._open()
            self._undo.enter_context(signals.allowed())
        except BaseException:
            self._undo.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Unmount everything."""
        self._undo.__exit__(kind, error, trace)
        if not error:
            self._raise_if_broken()

    def _open(self) -> None:
        if not os.getpgrp():
            raise Unavailable(
                "autofs: the leader of this process group is outside of our pid namespace, and the kernel would take "
                "nobody for the daemon. Remedy: a group of one's own, os.setpgid(0, 0)"
            )
        # Each step is followed by what undoes it; they are undone in reverse order.
        self._undo.callback(self._close)
        read, self.pipe = os.pipe2(os.O_CLOEXEC)  # plain: the kernel itself makes it a packet pipe
        wake, self._wake = os.pipe2(os.O_CLOEXEC)
        for fd in (read, wake, self._wake):
            self._undo.callback(os.close, fd)
        self._undo.callback(self._drain, read)
        self._root = self._attach()
        self._undo.callback(self._unmount_all)
        seconds = struct.pack("@L", self._timeout)
        fcntl.ioctl(self._root, self._number("AUTOFS_IOC_SETTIMEOUT"), seconds)
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=self._guard, args=work, name=f"autofs {work[0].__name__} {self.path}", daemon=True)
            for work in ((self._serve, read, wake), (self._expire,))
        ]
        self._undo.callback(self._stop, read)
        for thread in self._threads:
            thread.start()

    def _attach(self) -> int:
        # A file descriptor of the root, for the ioctls.
        before = _autofs_on(self.path)
        if before:
            return self._take_over(before)
        options = f"fd={self.pipe},pgrp={os.getpgrp()},minproto=5,maxproto=5,{self._kind}"
        try:
            mounts.mount(SOURCE, self.path, "autofs", options=options)
        except CallFailed as e:
            if e.errno in (errno.EPERM, errno.ENODEV):
                machine.require("autofs")
            raise
        self._note("serve", self._kind, name=self.path)
        try:
            # We are of the daemon's group: opening the root of a direct mount triggers nothing.
            root = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except BaseException:
            mounts.unmount(self.path)
            raise
        if not self._is_ours(root):  # all that hangs on it will be unmounted one day: better be sure
            os.close(root)
            raise CallFailed(
                errno.EBUSY, f"autofs: {self.path} was covered by another mount at once; unmount it by hand"
            )
        return root

    def _is_ours(self, root: int) -> bool:
        # Does the open folder lie in the autofs that writes into our pipe?
        inode, number = str(os.fstat(self.pipe).st_ino), mounts.mount_id(root)
        return any(m.id == number and m.options.get("pipe_ino") == inode for m in mounts.mounted())

    def _take_over(self, before: mounts.Mounted) -> int:
        # Its root may be covered, by what was mounted last: only /dev/autofs can open it then.
        if self._kind not in before.options:
            raise BadInput(f"autofs: what is mounted on {self.path} is not an autofs of the {self._kind} kind")
        if before.source != SOURCE:
            raise BadInput(f"autofs: the mount on {self.path} belongs to another automounter, {before.source!r}")
        if before.options.get("pgrp") == "0" and before.options.get("pipe_ino") == "-1":
            raise self._of_another_namespace()
        if before.options.get("pgrp") == "0":
            raise BadInput(f"autofs: {self.path} is served from another pid namespace, not to be seen from here")
        if pid := next(_holders(before.options.get("pipe_ino", "-1")), 0):
            raise BadInput(f"autofs: {self.path} is served already, by process {pid}")
        root: int = control("OPENMOUNT", openmount={"devid": before.device}, path=self.path)["ioctlfd"]
        try:
            # Releases who waits for the dead daemon; the kernel takes a new pipe only after it.
            control("CATATONIC", root)
            control("SETPIPEFD", root, setpipefd={"pipefd": self.pipe})
        except BaseException as e:
            os.close(root)
            if isinstance(e, CallFailed) and e.errno == errno.EINVAL:
                raise self._of_another_namespace() from e
            raise
        self._took_over = True
        self._note("reconnect", f"{len(mounts.below(mounts.mount_id(root)))} mounts found", name=self.path)
        return root

    def _of_another_namespace(self) -> Unavailable:
        return Unavailable(
            f"autofs: {self.path} was left by a daemon of another pid namespace, and only that one can have it "
            f"back. Remedy: umount -R {shlex.quote(self.path)}"
        )

    def _stop(self, read: int) -> None:
        # Releases requesters, and the expiring thread, whatever the serving one is busy with.
        # An answer that is on its way is refused from now on.
        self._ending.set()
        self._note("catatonic", name=self.path)
        self._go_catatonic()
        os.write(self._wake, b"!")
        for thread in self._threads:
            if thread.ident is not None:  # it was started
                thread.join()
        self._drain(read)

    def _go_catatonic(self) -> None:
        with self._connecting, contextlib.suppress(OSError):
            self._over = True
            fcntl.ioctl(self._root, self._number("AUTOFS_IOC_CATATONIC"), 0)

    def _connect_again(self) -> None:
        # Some process may have been about to write to the pipe of the dead daemon when this one took over.  It finds it
        # broken, and the kernel stops all requests.  Only then does it take a pipe; EBUSY means that all is well.
        with self._connecting, contextlib.suppress(CallFailed, Unavailable):
            if not self._over:
                control("SETPIPEFD", self._root, setpipefd={"pipefd": self.pipe})
                self._note("reconnect", "a late request to the dead daemon had cut us off", name=self.path)

    def _drain(self, read: int) -> None:
        # Who waits for room in the pipe has not heard that it is over, and would die of SIGPIPE if the pipe broke.  The
        # last of them lets go of the write end after us; a process that has borrowed it is not waited for.
        if self.pipe < 0:
            return
        os.close(self.pipe)
        self.pipe = -1
        waiting = select.poll()
        waiting.register(read, select.POLLIN)
        while waiting.poll(100) and os.read(read, 1 << 16):
            pass

    def _unmount_all(self) -> None:
        # First what hangs on ours, to tell what is in use; the last call takes with it what could not be unmounted.
        here = mounts.mount_id(self._root)
        failed: list[CallFailed] = []
        try:
            for name in self._hanging(here):
                try:
                    self._let_go(name)
                except CallFailed as e:  # the others shall go all the same
                    failed.append(e)
            if _is_mounted(here):
                in_use = not self._is_idle()
                while _is_mounted(here):  # again, if somebody covered it this moment
                    mounts.unmount(".", inside=self._root)
                self._note("end", DETACHED if in_use else "", name=self.path)
        finally:
            os.close(self._root)
        if failed:
            raise failed[0]

    def _hanging(self, here: int) -> list[str]:
        # The names that something is mounted on, in the order of unmounting; what hangs on that goes with it.
        points = {m.id: m.point for m in mounts.mounted()}
        names = [os.path.relpath(point, points[here]) for point in mounts.below(here)] if here in points else []
        return [name for name in names if "/" not in name and (name == ".") == self._direct]

    def _is_idle(self) -> bool:
        # Of the autofs itself: no process has a file or its working folder there.
        answer = fcntl.ioctl(self._root, self._number("AUTOFS_IOC_ASKUMOUNT"), bytes(4))
        return answer != bytes(4)

    def _let_go(self, target: str) -> None:
        try:
            detached = mounts.unmount(target, inside=self._root)
        except CallFailed as e:
            if e.errno not in (errno.EINVAL, errno.ENOENT):  # somebody else was quicker
                raise
            return
        self._note("unmount", DETACHED if detached else "", name=self.path if self._direct else target)

    def _close(self) -> None:
        with self._news:
            self._closed = True
            self._news.notify_all()

    # ------------------------------------------------------------------------------------ the log

    @property
    def log(self) -> Log:
        """What happened so far."""
        with self._news:
            return Log(tuple(self._events), provenance(f"Automount({self.path!r})"))

    def follow(self) -> Iterator[Event]:
        """Every event from the first on, as they happen, until the automounter ends.

        Raises CallFailed if the daemon breaks down.
        """
        told = 0
        while True:
            with self._news:
                while told == len(self._events) and not self._closed and not self._bug:
                    self._news.wait()
                fresh = self._events[told:]
            yield from fresh
            told += len(fresh)
            if not fresh:
                break
        self._raise_if_broken()

    def _raise_if_broken(self) -> None:
        if self._bug:
            raise CallFailed(0, f"autofs: the daemon of {self.path} broke down: {self._bug!r}") from self._bug

    def _note(self, what: str, detail: str = "", name: str = "", **who: int) -> None:
        with self._news:
            at = time.monotonic() - self._began
            self._events.append(Event(at=at, what=what, name=name, detail=detail, **who))
            self._news.notify_all()

    # ------------------------------------------------------------------------------------ the two threads

    def _guard(self, work: Callable[..., None], *arguments: int) -> None:
        try:
            work(*arguments)
        except BaseException as e:
            self._bug = e
            self._go_catatonic()  # nobody shall wait for a thread that is gone
            with self._news:
                self._news.notify_all()

    def _serve(self, read: int, wake: int) -> None:
        # Asks for one packet, no more, as automount and systemd do: on an un-fixed pipe several may lie together.
        size = autofs.PACKETS[f"missing_{self._kind}"].size(self._abi)
        waiting = select.poll()
        waiting.register(read, select.POLLIN)
        waiting.register(wake, select.POLLIN)
        while True:
            ready = dict(waiting.poll(LOOK_MS if self._took_over else None))
            if wake in ready:
                return
            if ready:
                self._answer(os.read(read, size))
            else:
                self._connect_again()

    def _answer(self, data: bytes) -> None:
        try:
            packet = autofs.decode(data, self._abi)
        except BadInput as e:
            self._note("refused", str(e))
            return
        name = self.path if self._direct else os.fsdecode(bytes(packet.fields.get("name", b"")))
        if packet.type == f"missing_{self._kind}":
            self._missing(name, packet.fields)
        elif packet.type == f"expire_{self._kind}":
            self._idle(name, packet.fields["token"])
        else:
            self._note("refused", packet.problem or f"a packet {packet.type}", name=name)

    def _missing(self, name: str, fields: Any) -> None:
        token, who = fields["token"], Requester(fields["uid"], fields["gid"], fields["tgid"])
        self._note("missing", name=name, token=token, **who._asdict())
        problem = self._show(name, who)
        self._reply("fail" if problem else "ready", name, token, problem)

    def _show(self, name: str, who: Requester) -> str:
        # Mounts what the lookup says, or tells why not.
        try:
            source = self._ask(name, who)
            if source is None:
                return "no such name"
            self._mount(os.fspath(source), name)
        except Exception as e:  # whatever goes wrong in there, somebody waits for an answer
            return f"{type(e).__name__}: {e}"
        return ""

    def _mount(self, source: str, name: str) -> None:
        if source != TMPFS and not os.path.isabs(source):
            raise BadInput(f"the source of {name!r} is {source!r}, expected an absolute path or {TMPFS}")
        target = self._target(name)
        if not self._direct:
            with contextlib.suppress(FileExistsError):  # a daemon that died may have left it
                os.mkdir(target, dir_fd=self._root)
        try:
            if source == TMPFS:
                mounts.mount("tmpfs", target, "tmpfs", options="mode=755", inside=self._root)
            else:
                mounts.mount(source, target, flags=mounts.MS_BIND, inside=self._root)
                # What somebody mounts below the source shows up here, but what we unmount here stays there.
                mounts.mount("", target, flags=mounts.MS_SLAVE | mounts.MS_REC, inside=self._root)
        except CallFailed:
            self._remove(target)
            raise
        self._note("mount", source, name=name)

    def _idle(self, name: str, token: Any) -> None:
        self._note("expire", name=name, token=token)
        target = self._target(name)
        try:
            mounts.unmount_idle(target, inside=self._root)
            self._note("unmount", name=name)
        except CallFailed as e:
            if e.errno != errno.EINVAL:  # it is mounted, and was taken into use this moment
                self._reply("fail", name, token, str(e.strerror))
                return
        self._remove(target)
        self._reply("ready", name, token)

    def _remove(self, target: str) -> None:
        if not self._direct:
            with contextlib.suppress(OSError):
                os.rmdir(target, dir_fd=self._root)

    def _target(self, name: str) -> str:
        # From the root of the mount: who may rename a folder above it decides where its path leads.
        return "." if self._direct else name

    def _reply(self, what: str, name: str, token: Any, detail: str = "") -> None:
        # Noted first: who waits may go on, and look at the log, before the call has returned.
        self._note(what, detail, name=name, token=token)
        try:
            fcntl.ioctl(self._root, self._number(f"AUTOFS_IOC_{what.upper()}"), token)
        except OSError as e:
            self._note("refused", f"{what}: {e.strerror}", name=name, token=token)

    def _expire(self) -> None:
        if not self._timeout:
            return
        while not self._ending.wait(max(0.25, self._timeout / 4)):
            # Each call finds one mount, except that a direct mount with nothing on it is offered again and again.
            while not self._ending.is_set() and mounts.below(mounts.mount_id(self._root)) and self._expire_one():
                pass

    def _expire_one(self) -> bool:
        # True if something was idle and is unmounted now.
        how = struct.pack("@i", 0)
        try:
            fcntl.ioctl(self._root, self._number("AUTOFS_IOC_EXPIRE_MULTI"), how)
        except OSError:  # EAGAIN: nothing is idle; ENOENT: the daemon could not unmount it; EBADF, in the end
            return False
        return True

    def _number(self, ioctl: str) -> int:
        return autofs.IOCTLS[ioctl].number(self._abi)


def _abi_of_the_kernel() -> str:
    machine_name = os.uname().machine
    if machine_name not in ABIS or struct.calcsize("P") * 8 != (64 if "64" in machine_name else 32):
        raise Unavailable(f"autofs: a {struct.calcsize('P') * 8}-bit Python on {machine_name} is not known here")
    return ABIS[machine_name]


def _of_two(lookup: Lookup) -> Callable[[str, Requester], Source]:
    # The same as a function of two arguments.  One is enough for dict.get: its second is no requester.
    def takes(*arguments: object) -> bool:
        try:
            signature.bind(*arguments)
        except TypeError:
            return False
        return True

    if not callable(lookup):
        raise BadInput(f"autofs: lookup is {lookup!r}, expected a function (name) or (name, requester)")
    of_one = cast(Callable[[str], Source], lookup)
    try:
        signature = inspect.signature(lookup)
    except ValueError:  # some functions written in C do not tell
        return lambda name, _: of_one(name)
    if takes("name"):
        return lambda name, _: of_one(name)
    if not takes("name", "requester"):
        raise BadInput(f"autofs: lookup takes {signature}, expected (name) or (name, requester)")
    return cast(Callable[[str, Requester], Source], lookup)


def _autofs_on(path: str) -> mounts.Mounted | None:
    # The one mounted last; something else may cover it.
    return next((m for m in reversed(mounts.mounted()) if m.point == path and m.fstype == "autofs"), None)


def _is_mounted(number: int) -> bool:
    return any(m.id == number for m in mounts.mounted())


def _holders(pipe: str) -> Iterator[int]:
    # The processes that hold an end of this pipe, ourselves included.
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if os.readlink(link) == f"pipe:[{pipe}]":
                yield int(link.parts[2])


@contextlib.contextmanager
def _device() -> Iterator[int]:
    try:
        device = os.open(DEVICE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as e:
        raise Unavailable(f"autofs: {DEVICE}: {e.strerror}. Remedy: mknod {DEVICE} c 10 235, as root") from e
    try:
        yield device
    finally:
        os.close(device)
