"""The kernel's UAPI headers as Debian installs them, for tests and benchmarks alike."""

from pathlib import Path

FOLDERS = ("linux", "asm", "asm-generic", "sound", "rdma", "scsi", "mtd", "misc", "video", "xen", "drm")
ROOTS = (Path("/usr/include"), Path("/usr/include/x86_64-linux-gnu"))


def headers() -> dict[str, Path]:
    """The path of each, by the name that an #include would give it."""
    found = ((root, path) for root in ROOTS for folder in FOLDERS for path in (root / folder).rglob("*.h"))
    return dict(sorted((str(path.relative_to(root)), path) for root, path in found))
