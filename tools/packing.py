"""Zips that are the same bytes whenever they are made of the same files."""

from __future__ import annotations

import zipfile

EPOCH = (1980, 1, 1, 0, 0, 0)


def add(archive: zipfile.ZipFile, name: str, data: bytes | str) -> None:
    """Put a file into the archive, packed as small as can be, without its date."""
    archive.writestr(zipfile.ZipInfo(name, EPOCH), data, zipfile.ZIP_DEFLATED, 9)
