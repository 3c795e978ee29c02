"""Unpacking the archive that a label tool gives."""

from __future__ import annotations

import errno
import stat
import zipfile
from collections.abc import Collection
from pathlib import Path

from s5mars.errors import UserError
from s5mars.files import below
from s5mars.files.reading import reading

MAX_FILES = 200_000
MAX_BYTES = 8 << 30
"""Of all files that are unpacked: a small archive can hold far more."""

_BLOCK = 1 << 20
_BAD_NAME = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EILSEQ)


def unpack(path: Path, folder: Path, *, endings: Collection[str]) -> Path:
    """Unpack the files of a zip archive with these endings (lower case) below a new folder.

    Raises:
        MissingFileError: if there is no such file.
        DamagedFileError: if it is no zip archive, or damaged.
        UserError: if it is encrypted, a name in it leads out of the folder, or it holds more than
            ``MAX_FILES`` or ``MAX_BYTES``.
        OSError: if the folder cannot be written to.
    """
    remedy = "export it again, or unpack it and give the folder"
    folder.mkdir()
    with reading(path, kind="zip archive", remedy=remedy), zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        if len(members) > MAX_FILES:
            raise UserError(f"{path}: {len(members):,} files, more than the {MAX_FILES:,} allowed")
        left = MAX_BYTES
        for member in members:
            name = member.filename.replace("\\", "/")
            target = below(folder, name, source=path)  # also of those that are left out
            if target.suffix.lower() not in endings or target.name.startswith("."):
                continue
            if member.flag_bits & 0x1:
                raise UserError(f"{path}: {name} is encrypted; unpack it and give the folder")
            if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
                raise UserError(f"{path}: {name} is a link or a device; export it again")
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as packed, target.open("wb") as file:
                    while block := packed.read(_BLOCK):
                        left -= len(block)
                        if left < 0:
                            raise UserError(
                                f"{path}: unpacks to more than {MAX_BYTES:,} bytes; unpack it and "
                                "give the folder"
                            )
                        file.write(block)
            except OSError as error:
                if error.errno in _BAD_NAME:
                    raise UserError(
                        f"{path}: {name!r} cannot be the name of a file: {remedy}"
                    ) from None
                raise
    return folder
