"""The running kernel's own types: `/sys/kernel/btf/vmlinux`, and one file beside it for each loaded module."""

from __future__ import annotations

import os
from pathlib import Path

from kernelnotes import btf
from kernelnotes.errors import BadInput, Unavailable
from kernelnotes.live import machine
from kernelnotes.live.origin import provenance

FOLDER = Path("/sys/kernel/btf")
# What `uname -m` says, and our name for it; for others BTF itself gives byte order and width.
ABIS = {
    "x86_64": "x86-64",
    "aarch64": "aarch64",
    "armv7l": "arm-eabi",
    "ppc64": "ppc64",
    "ppc64le": "ppc64le",
    "riscv64": "riscv64",
    "loongarch64": "loongarch64",
}


def types(module: str = "") -> btf.Types:
    """The types of the running kernel or, on top of them, of one of its loaded modules.

    Raises Unavailable where the kernel shows none, they cannot be read, or no such module is loaded, BadInput for what
    is no module's name.
    """
    machine.require("kernel types")
    vmlinux = _read("vmlinux")
    if not module:
        return vmlinux
    name = module.replace("-", "_")  # as the kernel itself calls it
    if not name.isidentifier():
        raise BadInput(f"{module!r} is no name of a module")
    if not (FOLDER / name).exists():
        raise Unavailable(f"no module {module} is loaded ({FOLDER / name} is missing). Remedy: modprobe {module}")
    return _read(name, vmlinux)


def _read(name: str, base: btf.Types | None = None) -> btf.Types:
    try:
        data = (FOLDER / name).read_bytes()
    except OSError as e:
        raise Unavailable(f"kernel types: {FOLDER / name}: {e.strerror}") from e
    return btf.read(data, base, ABIS.get(os.uname().machine, ""), provenance(f"cat {FOLDER / name}"))
