"""Zip archives of weights: members found and checked, never extracted."""

import io
import os
import struct
import threading
import zipfile
import zlib
from typing import Any

import numpy as np

from tfavmae.weights.stored import MAX_COMPRESSION, MAX_ENTRIES, Section, reading

_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_CHUNK = 1 << 22


class Member:
    """A file in an archive.

    Args:
        path: of the archive.
        info: what the archive's directory says of it.
    """

    def __init__(self, path: str, info: zipfile.ZipInfo) -> None:
        self._path = path
        self._info = info
        self._lock = threading.Lock()
        self._is_checked = False
        self.name = info.filename
        self.size = info.file_size
        self.is_stored = info.compress_type == zipfile.ZIP_STORED
        if self.is_stored and info.compress_size != info.file_size:
            raise ValueError(f"{info.filename!r} has two sizes")
        if info.flag_bits & 1:
            raise ValueError(f"{info.filename!r} is encrypted")

    def section(self) -> Section:
        """The bytes of an uncompressed member, compared with their checksum once.

        Raises:
            UserError: they are not those that were written.
        """
        with reading(self._path), self._lock, open(self._path, "rb") as file:
            file.seek(self._info.header_offset)
            header = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
            if header[0] != b"PK\x03\x04":
                raise ValueError(f"{self.name!r} is not where it should be")
            # The lengths of name and extra field here may differ from those in the
            # directory: PyTorch pads the extra field to align the numbers.
            start = file.tell() + header[-2] + header[-1]
            whole = Section(self._path, 0, os.fstat(file.fileno()).st_size)
            section = whole.part(start, self.size)
            if not self._is_checked:
                self._check(file, start)
        return section

    def _check(self, file: Any, start: int) -> None:
        # PyTorch writes 0 where it was told to compute no checksum.
        if self._info.CRC:
            file.seek(start)
            crc, left = 0, self.size
            while left:
                chunk = file.read(min(_CHUNK, left))
                if not chunk:
                    raise ValueError("the file ends too early")
                crc, left = zlib.crc32(chunk, crc), left - len(chunk)
            if crc != self._info.CRC:
                raise ValueError(f"{self.name!r} is not what was written")
        self._is_checked = True

    def open(self) -> io.BufferedIOBase:
        """The member as a file, uncompressed as it is read; its end checks the sum.

        Raises:
            UserError: the archive is damaged there, or gone.
        """
        with reading(self._path):
            file = open(self._path, "rb")  # noqa: SIM115 - closed with the member
            archive = zipfile.ZipFile(file)
            return _Closing(archive.open(self._info), file)

    def read(self) -> bytes:
        """The whole member.

        Raises:
            UserError: the archive is damaged there, or gone.
        """
        with reading(self._path):
            if self.is_stored:
                return bytes(self.section().read())
            with self.open() as file:
                # One more than it states: `zipfile` itself stops at the stated size.
                content = file.read(self.size + 1)
            if len(content) != self.size:
                raise ValueError(f"{self.name!r} has not the size that it states")
            return content

    def array(self, start: int, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        """The numbers that fill the member from `start` on.

        Raises:
            UserError: the archive is damaged there, or gone.
        """
        with reading(self._path):
            if self.is_stored:
                rest = self.section().part(start, self.size - start)
                return rest.array(dtype, shape)
            content = self.read()
            return np.frombuffer(content, dtype, offset=start).reshape(shape).copy()


class _Closing(io.BufferedIOBase):
    """A member that closes its archive's file, too."""

    def __init__(self, member: Any, file: Any) -> None:
        self._member = member
        self._file = file

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        return self._member.read(size)

    def close(self) -> None:
        self._member.close()
        self._file.close()
        super().close()


def members(path: str) -> dict[str, Member]:
    """The members of an archive by name.

    Raises:
        UserError: it is damaged, unpacks to far more than its own size, or has two
            members of one name.
    """
    found: dict[str, Member] = {}
    with reading(path), zipfile.ZipFile(path) as archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
        size = os.path.getsize(path)
        if len(infos) > MAX_ENTRIES:
            raise ValueError(f"{len(infos)} members")
        # Members that share their bytes are a way to unpack to much more.
        if sum(info.compress_size for info in infos) > size:
            raise ValueError("its members are larger than the file")
        unpacked = sum(info.file_size for info in infos)
        if unpacked > MAX_COMPRESSION * size:
            raise ValueError(f"{size} bytes that unpack to {unpacked}: a zip bomb")
        for info in infos:
            if info.filename in found:
                raise ValueError(f"two members are called {info.filename!r}")
            found[info.filename] = Member(path, info)
    return found
